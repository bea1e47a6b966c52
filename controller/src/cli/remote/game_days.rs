//! `backburn gameday`: preparing game days, going through their steps, and listing them.

use super::super::signals::{self, RunSignal, RunSignals};
use super::super::table::{print_table, to_the_second};
use super::super::{CommandFailure, print, print_json, print_json_line, print_stderr, runtime};
use super::ControllerOptions;
use super::client::{Client, to_json};
use super::event_stream::receive;
use super::follow::{MAX_RECONNECTS, RECONNECT_DELAY};
use super::note_lines::line;
use super::notes::{NoteTarget, insert, notes_path};
use backburn::api::types::{
    GameDayDocumentInfo, GameDayInfo, GameDayReason, PrepareGameDayRequest, RevealRequest,
    RunNoteInfo, VersionInfo,
};
use backburn_experiments::journal::Outcome;
use backburn_experiments::json as strict_json;
use backburn_experiments::probes::address::percent_encoded;
use backburn_experiments::terminal_text::escape;
use clap::{Args, Subcommand};
use serde_json::json;
use std::path::Path;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(in crate::cli) struct GamedayCommand {
    #[command(subcommand)]
    action: Option<GamedayAction>,
    /// Print JSON instead of text for people
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    controller: ControllerOptions,
}

/// Which game day is prepared, and how.
#[derive(Debug, Args)]
struct PrepareOptions {
    /// File of the game day, or name of a stored one
    #[arg(value_name = "FILE|NAME")]
    day: String,
    /// Inject nothing: the team only talks about the experiments
    #[arg(long)]
    tabletop: bool,
    /// Person who holds a duty, in place of the document's; may be repeated
    #[arg(long = "duty", value_name = "DUTY=PERSON")]
    duties: Vec<String>,
    /// Check off all prerequisites
    #[arg(long)]
    prerequisites_met: bool,
    /// Print JSON instead of text for people
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    controller: ControllerOptions,
}

/// Which game day something is done with.
#[derive(Debug, Args)]
struct GameDayTarget {
    /// Id of the game day
    #[arg(value_name = "GAMEDAY")]
    id: String,
    #[command(flatten)]
    controller: ControllerOptions,
}

#[derive(Debug, Subcommand)]
enum GamedayAction {
    /// Prepare a game day, begin it, and follow it to its end; Ctrl-C stops it
    Run {
        #[command(flatten)]
        options: PrepareOptions,
        /// Do not follow it: print its id and return
        #[arg(long)]
        detach: bool,
    },
    /// Prepare a game day, so that people can check it and begin
    Prepare(PrepareOptions),
    /// Show a game day with its steps
    Show(GameDayTarget),
    /// Begin a game day, or go on to its next step
    Next(GameDayTarget),
    /// Pause a game day; a run that is open goes on
    Pause {
        #[command(flatten)]
        target: GameDayTarget,
        /// Reason, in words for people
        #[arg(long, value_name = "TEXT")]
        why: Option<String>,
    },
    /// Resume a game day
    Resume(GameDayTarget),
    /// Stop a game day and its run; faults are reverted first
    Stop {
        #[command(flatten)]
        target: GameDayTarget,
        /// Reason, in words for people
        #[arg(long, value_name = "TEXT")]
        why: Option<String>,
    },
    /// Reveal a step, or all, to participants with a blind token
    Reveal {
        #[command(flatten)]
        target: GameDayTarget,
        /// Number of the step [default: all]
        #[arg(long, value_name = "N")]
        step: Option<u32>,
    },
    /// Check off a prerequisite
    Check {
        #[command(flatten)]
        target: NoteTarget,
        /// Number of the prerequisite
        number: u32,
        /// It is not met any more
        #[arg(long)]
        undo: bool,
    },
    /// Hand a duty over
    Duty {
        #[command(flatten)]
        target: NoteTarget,
        /// Duty: incident-commander, scribe, communications, facilitator or observers
        duty: String,
        /// Person who has it from now on
        person: String,
        /// Person who had it [default: whoever has it]
        #[arg(long, value_name = "PERSON")]
        from: Option<String>,
        /// Reason, in words for people
        #[arg(long, value_name = "TEXT")]
        why: Option<String>,
    },
    /// Write a status update from the template, for a game day or a run
    Update {
        #[command(flatten)]
        target: NoteTarget,
        /// What users notice of the problem
        #[arg(long, value_name = "TEXT")]
        impact: String,
        /// What users can do meanwhile
        #[arg(long, value_name = "TEXT")]
        workaround: Option<String>,
        /// When the next update comes, e.g. `2026-05-04T14:30:00Z` [default: as the game day says]
        #[arg(long, value_name = "TIME")]
        next: Option<String>,
        /// For customers and everybody else, instead of the team and its company
        #[arg(long)]
        outward: bool,
    },
    /// Correct the time of an entry; both times are kept
    Correct {
        #[command(flatten)]
        target: NoteTarget,
        /// Number of the entry
        number: u64,
        /// When it really happened, e.g. `2026-05-04T14:03:20Z`
        time: String,
        /// Reason, in words for people
        #[arg(long, value_name = "TEXT")]
        why: Option<String>,
    },
    /// Attach a link to a game day or a run
    Attach {
        #[command(flatten)]
        target: NoteTarget,
        /// What the attachment is, e.g. a dashboard
        title: String,
        /// Address of the attachment, a URL
        url: String,
    },
    /// Print the notes of a game day or a run
    Notes {
        /// Id of the game day or of the run
        #[arg(value_name = "RUN|GAMEDAY")]
        target: String,
        /// Follow the notes until the game day is over; Ctrl-C ends the command
        #[arg(long)]
        follow: bool,
        /// Print JSON instead of text for people
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        controller: ControllerOptions,
    },
    /// List the stored game days
    Documents {
        /// Print JSON instead of text for people
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        controller: ControllerOptions,
    },
    /// List the versions of a stored game day
    Versions {
        /// Name of the stored game day
        name: String,
        #[command(flatten)]
        controller: ControllerOptions,
    },
    /// Remove a stored game day; its history is kept
    Remove {
        /// Name of the stored game day
        name: String,
        #[command(flatten)]
        controller: ControllerOptions,
    },
}

/// Runs `backburn gameday` and its subcommands.
pub(in crate::cli) fn main(command: &GamedayCommand) -> Result<u8, CommandFailure> {
    let Some(action) = &command.action else {
        let client = command.controller.client()?;
        let days: Vec<GameDayInfo> = client.get("/api/v1/game-days?limit=100")?;
        match command.json {
            true => print_json(&days),
            false => print_table(
                ["ID", "STATE", "STEP", "MODE", "PREPARED", "TITLE"],
                days.into_iter().map(row),
                "no game days were prepared",
            ),
        }
        return Ok(0);
    };
    match action {
        GamedayAction::Run { options, detach } => run(options, *detach),
        GamedayAction::Prepare(options) => {
            let prepared = prepare(&options.controller.client()?, options, false)?;
            match options.json {
                true => print_json(&prepared),
                false => print(&format!("{}\n", prepared.id)),
            }
            Ok(0)
        }
        GamedayAction::Show(target) => {
            let day: GameDayInfo = target.controller.client()?.get(&target.path(""))?;
            print_json(&day);
            Ok(0)
        }
        GamedayAction::Next(target) => target.change("/next", &json!({})),
        GamedayAction::Resume(target) => target.change("/resume", &json!({})),
        GamedayAction::Pause { target, why } => {
            target.change("/pause", &GameDayReason { why: why.clone() })
        }
        GamedayAction::Stop { target, why } => {
            target.change("/stop", &GameDayReason { why: why.clone() })
        }
        GamedayAction::Reveal { target, step } => {
            target.change("/reveal", &RevealRequest { step: *step })
        }
        GamedayAction::Check {
            target,
            number,
            undo,
        } => target.add(&json!({"kind": "prerequisite", "number": number, "met": !undo})),
        GamedayAction::Duty {
            target,
            duty,
            person,
            from,
            why,
        } => {
            let mut note = json!({"kind": "duty", "duty": duty, "to": person});
            insert(&mut note, "from", from.clone());
            insert(&mut note, "why", why.clone());
            target.add(&note)
        }
        GamedayAction::Update {
            target,
            impact,
            workaround,
            next,
            outward,
        } => {
            let audience = if *outward { "outward" } else { "internal" };
            let mut note = json!({"kind": "update", "audience": audience, "impact": impact});
            insert(&mut note, "workaround", workaround.clone());
            insert(&mut note, "next", next.clone());
            target.add(&note)
        }
        GamedayAction::Correct {
            target,
            number,
            time,
            why,
        } => {
            let mut note = json!({"kind": "correction", "of": number, "happened": time});
            insert(&mut note, "why", why.clone());
            target.add(&note)
        }
        GamedayAction::Attach { target, title, url } => {
            target.add(&json!({"kind": "link", "title": title, "url": url}))
        }
        GamedayAction::Notes {
            target,
            follow,
            json,
            controller,
        } => notes(&controller.client()?, target, *follow, *json),
        GamedayAction::Documents { json, controller } => {
            let documents: Vec<GameDayDocumentInfo> =
                controller.client()?.get("/api/v1/game-day-documents")?;
            match json {
                true => print_json(&documents),
                false => print_table(
                    ["NAME", "VERSION", "NEXT", "TITLE"],
                    documents.into_iter().map(document_row),
                    "no game days are stored",
                ),
            }
            Ok(0)
        }
        GamedayAction::Versions { name, controller } => {
            let path = format!(
                "/api/v1/game-day-documents/{}/versions",
                percent_encoded(name)
            );
            let versions: Vec<VersionInfo> = controller.client()?.get(&path)?;
            print_json(&versions);
            Ok(0)
        }
        GamedayAction::Remove { name, controller } => {
            let path = format!("/api/v1/game-day-documents/{}", percent_encoded(name));
            let _removed: VersionInfo = controller.client()?.delete(&path)?;
            print_stderr(&format!(
                "{} is removed; its history is kept\n",
                escape(name)
            ));
            Ok(0)
        }
    }
}

fn row(day: GameDayInfo) -> [String; 6] {
    let state = match day.paused {
        Some(_) => format!("{}, paused", day.state),
        None => day.state,
    };
    [
        day.id,
        state,
        format!("{} of {}", day.step, day.steps.len()),
        day.mode,
        to_the_second(&day.prepared),
        day.title,
    ]
}

fn document_row(document: GameDayDocumentInfo) -> [String; 4] {
    let title = document.document["game-day"]["title"].as_str();
    [
        document.name,
        document.version.to_string(),
        document
            .next
            .as_deref()
            .map(to_the_second)
            .unwrap_or_default(),
        title.unwrap_or_default().to_owned(),
    ]
}

impl GameDayTarget {
    fn path(&self, what: &str) -> String {
        format!("/api/v1/game-days/{}{what}", percent_encoded(&self.id))
    }

    /// Does something with the game day, and says what it is then.
    fn change(&self, what: &str, body: &impl serde::Serialize) -> Result<u8, CommandFailure> {
        let day: GameDayInfo = self.controller.client()?.post(&self.path(what), body)?;
        print_stderr(&format!("{}\n", escape(&summary(&day))));
        Ok(0)
    }
}

fn summary(day: &GameDayInfo) -> String {
    let (id, step, count) = (&day.id, day.step, day.steps.len());
    match (day.state.as_str(), &day.paused) {
        (state, Some(_)) => format!("game day {id} is paused: {state}, step {step} of {count}"),
        ("prepared" | "ended", None) => format!("game day {id} is {}", day.state),
        (state, None) => format!("game day {id}: {state}, step {step} of {count}"),
    }
}

/// Asks the controller to prepare a game day, and to begin it if that is wanted.
fn prepare(
    client: &Client,
    options: &PrepareOptions,
    begin: bool,
) -> Result<GameDayInfo, CommandFailure> {
    let mut request = PrepareGameDayRequest {
        mode: options.tabletop.then(|| "tabletop".to_owned()),
        prerequisites_met: options.prerequisites_met,
        begin,
        ..PrepareGameDayRequest::default()
    };
    for given in &options.duties {
        let Some((duty, person)) = given.split_once('=') else {
            return Err(CommandFailure::invalid(format!(
                "`--duty {}`: expected DUTY=PERSON\nhint: for example `--duty scribe=ada`",
                escape(given)
            )));
        };
        let holders = request.duties.entry(duty.to_owned()).or_default();
        holders.push(person.to_owned());
    }
    let path = Path::new(&options.day);
    let is_file = options.day.contains(['/', '.']) || path.is_file();
    match is_file {
        false => request.name = Some(options.day.clone()),
        true => {
            let shown = escape(&options.day);
            let text = std::fs::read_to_string(path)
                .map_err(|error| CommandFailure::invalid(format!("{shown}: {error}")))?;
            let document = strict_json::read(&text).map_err(|problems| {
                let what = strict_json::in_one_line(&problems);
                CommandFailure::invalid(format!("{shown}: {what}"))
            })?;
            request.document = Some(document);
        }
    }
    client.post("/api/v1/game-days", &request)
}

/// Holds a game day to its end.
fn run(options: &PrepareOptions, detach: bool) -> Result<u8, CommandFailure> {
    let client = options.controller.client()?;
    let begun = prepare(&client, options, true)?;
    let id = begun.id;
    if detach {
        print(&format!("{id}\n"));
        return Ok(0);
    }
    print_stderr(&format!(
        "game day {id} has begun; Ctrl-C stops it, and its faults are reverted first\n"
    ));
    let stop = format!("/api/v1/game-days/{id}/stop");
    let path = format!("/api/v1/game-days/{id}/notes/stream");
    let as_json = options.json;
    let why = runtime()?.block_on(async {
        let mut signals = RunSignals::listen()
            .map_err(|error| CommandFailure::invalid(format!("cannot receive signals: {error}")))?;
        let followed = follow(&client, &path, as_json);
        tokio::pin!(followed);
        loop {
            tokio::select! {
                why = followed.as_mut() => return why,
                signal = signals.next() => match signal {
                    RunSignal::Ignored(name) => print_stderr(&format!("{}\n", signals::ignored(name))),
                    RunSignal::End(name) => {
                        print_stderr(&format!("{name}: stopping the game day; its faults are reverted first\n"));
                        let reason = GameDayReason { why: Some(format!("{name} received")) };
                        // A second signal comes when it is over already.
                        let stopped: Result<GameDayInfo, _> =
                            client.request("POST", &stop, Some(to_json(&reason)?)).await;
                        if let Err(failure) = stopped {
                            print_stderr(&format!("{}\n", failure.message));
                        }
                    }
                },
            }
        }
    })?;
    Ok(match why {
        None => 0,
        Some(_) => Outcome::Aborted.exit_code(),
    })
}

/// Prints the notes of a game day until it is over. Returns why it ended early, if it did.
async fn follow(
    client: &Client,
    path: &str,
    as_json: bool,
) -> Result<Option<String>, CommandFailure> {
    let (mut after, mut failures) = (0, 0);
    loop {
        let before = after;
        let mut why = None;
        let received = receive(client, path, after, |event| {
            if event.kind != "note" {
                return Ok(false);
            }
            let note: RunNoteInfo = event.read()?;
            after = event.number;
            match as_json {
                true => print_json_line(&note),
                false => print(&line(&note)),
            }
            why = note.body["why"].as_str().map(str::to_owned);
            Ok(note.kind == "state" && note.body["state"] == "ended")
        });
        match received.await {
            Ok(true) => return Ok(why),
            Ok(false) => {}
            Err(failure) if failures >= MAX_RECONNECTS => return Err(failure),
            Err(_) => {}
        }
        failures = if after > before { 0 } else { failures + 1 };
        tokio::time::sleep(RECONNECT_DELAY).await;
    }
}

fn notes(
    client: &Client,
    target: &str,
    is_followed: bool,
    as_json: bool,
) -> Result<u8, CommandFailure> {
    let path = notes_path(client, target)?;
    if is_followed {
        runtime()?.block_on(follow(client, &format!("{path}/stream"), as_json))?;
        return Ok(0);
    }
    let notes: Vec<RunNoteInfo> = client.get(&path)?;
    match as_json {
        true => print_json(&notes),
        false => notes.iter().for_each(|note| print(&line(note))),
    }
    Ok(0)
}
