// A whole game day, live, played from the page alone by two people, one of whom may not know what it does; in minutes' place, seconds.

/** Plays it. `tools` are those of `page.mjs`; `given.drill` names the day, its experiment and what is secret of them. */
export async function liveDay(browser, tools, given) {
  const { open, signIn, goTo, until, check, serious, shoot, watch, expectErrors } = tools;
  const { drill } = given;
  const lead = await open(browser, 'lead of the drill');
  await signIn(lead, given.operator);
  await goTo(lead, '#/game-days');
  await lead.locator('tr').filter({ has: lead.getByRole('cell', { name: drill.name, exact: true }) }).getByRole('button', { name: 'Prepare live' }).click();
  await lead.waitForURL(/#\/game-days\/gd-/);
  const hash = new URL(lead.url()).hash;

  // It does not begin before what must be so is so.
  expectErrors(true);
  await lead.getByRole('button', { name: 'Begin' }).click();
  await lead.locator('.problem').first().waitFor();
  expectErrors(false);
  await lead.getByLabel(drill.prerequisite).check();
  await until('the prerequisite is met', async () => (await lead.locator('.timeline').innerText()).includes('prerequisite 1 is met'));
  await lead.getByRole('button', { name: 'Begin' }).click();
  await until('the drill runs', async () => (await lead.locator('.run-head').innerText()).includes('running'));

  const participant = await open(browser, 'participant of the drill');
  await signIn(participant, given.blind);
  await goTo(participant, hash);
  await participant.getByRole('heading', { name: 'Steps' }).waitFor();
  const seen = async () => (await participant.locator('body').innerText());
  const tells = async () => { const text = await seen(); return drill.secrets.some((word) => text.includes(word)); };
  await participant.locator('.timeline li', { hasText: drill.prompt }).waitFor();
  check(!(await tells()), 'a participant sees the prompt, and not what is done');

  // The run itself: what is measured, and not what acts.
  const run = await participant.locator('main a[href^="#/runs/"]').first().getAttribute('href');
  await goTo(participant, run);
  await participant.locator('.probe canvas').first().waitFor();
  check(!(await tells()), 'a participant sees of the run what is measured only');
  await goTo(lead, run);
  await lead.locator('.fault.acts').waitFor();
  await goTo(lead, hash);
  await goTo(participant, hash);

  // What people do: notice, decide, hand over, tell others, mitigate.
  await participant.locator('.timeline li', { hasText: drill.prompt }).waitFor();
  await participant.locator('h1').click();
  await participant.keyboard.press('d');
  await lead.locator('.mark', { hasText: 'detected' }).waitFor();
  await participant.getByLabel('Kind of note').selectOption('decision');
  await participant.getByLabel('Add', { exact: true }).fill('We move the customers to the other site');
  await participant.keyboard.press('Enter');
  await lead.locator('.timeline li', { hasText: 'Decision: We move the customers' }).waitFor();
  await lead.getByLabel('Who takes over incident-commander').fill('pat');
  await lead.keyboard.press('Enter');
  await participant.locator('.timeline li', { hasText: 'hands over to pat' }).waitFor();
  await lead.getByText('Status update', { exact: true }).click();
  const outward = lead.locator('form.update', { hasText: 'outward' });
  await outward.getByLabel('Impact').fill('Some cannot pay');
  await outward.getByLabel('Next update in minutes').fill('10');
  await outward.getByRole('button', { name: 'Send' }).click();
  await participant.locator('.timeline li', { hasText: 'Some cannot pay' }).waitFor();
  await participant.locator('h1').click();
  await participant.keyboard.press('m');
  await lead.locator('.mark', { hasText: 'mitigated' }).waitFor();
  check(!(await tells()), 'a participant still does not know what is done');
  await shoot(participant, 'drill-participant');

  // The fault is over, and the discussion reveals it.
  await until('the discussion begins', async () => (await lead.locator('.run-head').innerText()).includes('discussion'));
  await until('the discussion reveals what was done', tells);
  await lead.getByRole('button', { name: 'Next' }).click();
  await until('the second step is discussed', async () => (await lead.locator('.run-head').innerText()).includes('step 2 of 2') && (await lead.getByRole('button', { name: 'End it' }).count()) === 1);
  await lead.getByRole('button', { name: 'End it' }).click();
  await until('the drill is over for both', async () => (await lead.locator('.run-head').innerText()).includes('ended') && (await participant.locator('.run-head').innerText()).includes('ended'));

  // Its report says what a reader who was not there wants to know.
  const opening = lead.context().waitForEvent('page');
  await lead.getByRole('link', { name: 'The report of this game day' }).click();
  const report = await opening;
  watch(report, 'report of the drill');
  await report.waitForLoadState();
  const said = await report.locator('body').innerText();
  for (const word of [drill.purpose, drill.fault, given.victim, given.agent, 'detected', 'mitigated', 'We move the customers to the other site', 'Some cannot pay', 'pat', drill.experiment]) {
    check(said.includes(word), `the report has: ${word}`);
  }
  if (await report.getByRole('heading', { level: 2 }).count() !== 13) throw new Error('the report has not its thirteen sections');

  // What will be done about it, from the page, with the experiment that proves it.
  await goTo(lead, '#/actions');
  await lead.getByText('Add an action', { exact: true }).first().click();
  await lead.getByLabel('What will be done').fill('Clients time out after a second');
  await lead.getByLabel('Owner').fill('pat');
  await lead.getByLabel('Experiment that proves it').fill(drill.experiment);
  await lead.getByRole('button', { name: 'Add the action' }).click();
  await lead.locator('tr', { hasText: 'Clients time out after a second' }).waitFor();
  await serious(lead, 'actions');
}
