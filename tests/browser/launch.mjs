// Starts headless Chromium with a home of its own.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

/** The browser, and what ends it and leaves nothing behind. */
export async function launch() {
  const data = mkdtempSync(join(tmpdir(), 'backburn-browser-'));
  const browser = await chromium.launch({
    executablePath: process.env.BACKBURN_CHROMIUM ?? '/usr/bin/chromium', headless: true,
    args: ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync', '--disable-dev-shm-usage'],
    env: { ...process.env, HOME: data },
  });
  const end = async () => {
    await browser.close();
    rmSync(data, { recursive: true, force: true });
  };
  return { browser, end };
}
