//! The live view of `backburn run` on a real pseudo-terminal, as a terminal shows it.
#![allow(clippy::unwrap_used)] // A test ends by panicking.
#![cfg(feature = "local-agent")]

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::json;
use snapbox::cmd::cargo_bin;
use std::fs::File;
use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A terminal of a person, and the end of it that programs write to.
struct Terminal {
    screen: Arc<Mutex<vt100::Parser>>,
    path: String,
    /// Kept open, so that reading ends with the terminal and not with the first program.
    slave: File,
}

impl Terminal {
    fn new(columns: u16, lines: u16) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let path = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let slave = File::options().read(true).write(true).open(&path).unwrap();
        let screen = Arc::new(Mutex::new(vt100::Parser::new(lines, columns, 0)));
        let mut master = File::from(master);
        let parser = Arc::clone(&screen);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = master.read(&mut bytes) {
                parser.lock().unwrap().process(&bytes[..count]);
            }
        });
        let terminal = Terminal {
            screen,
            path,
            slave,
        };
        terminal.resize(columns, lines);
        terminal
    }

    fn resize(&self, columns: u16, lines: u16) {
        let mut screen = self.screen.lock().unwrap();
        screen.screen_mut().set_size(lines, columns);
        let (columns, lines) = (columns.to_string(), lines.to_string());
        let stty = Command::new("stty")
            .args(["-F", &self.path, "columns", &columns, "rows", &lines])
            .status();
        assert!(stty.unwrap().success());
    }

    fn lines(&self) -> Vec<String> {
        let contents = self.screen.lock().unwrap().screen().contents();
        contents.lines().map(str::to_owned).collect()
    }

    /// Waits until the lines of the screen are as wanted, and returns them.
    fn until(&self, what: &str, wanted: impl Fn(&[String]) -> bool) -> Vec<String> {
        let began = Instant::now();
        loop {
            let lines = self.lines();
            if wanted(&lines) {
                return lines;
            }
            assert!(
                began.elapsed() < Duration::from_secs(30),
                "{what}: {lines:#?}"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn faults(lines: &[String]) -> Vec<&String> {
    lines.iter().filter(|line| line.contains('⚡')).collect()
}

#[test]
fn live_view_names_the_fault_once_whatever_the_terminal_is_resized_to() {
    let folder = tempfile::tempdir().unwrap();
    let mark = format!("8{}", std::process::id());
    let mut sleeper = Command::new("sleep").arg(&mark).spawn().unwrap();
    let document = json!({"title": "t", "description": "d", "abort": [],
        "steady-state-hypothesis": {"title": "h", "probes": [{"type": "probe", "name": "always", "tolerance": 0,
            "provider": {"type": "process", "path": "true"}}]},
        "method": [{"type": "action", "name": "rest", "provider": {"type": "fault", "fault": "process-pause",
            "duration": "4s", "arguments": {"process": {"command-line": format!("^sleep {mark}$")}}}}]});
    std::fs::write(folder.path().join("x.json"), document.to_string()).unwrap();
    let terminal = Terminal::new(100, 30);
    let mut run = Command::new(cargo_bin!("backburn"))
        .args(["run", "x.json"])
        .current_dir(folder.path())
        .env("BACKBURN_STATE", folder.path().join("state"))
        .env("TERM", "xterm")
        .env_remove("BACKBURN_POLICY")
        .env_remove("BACKBURN_CONTROLLER")
        .stdout(Stdio::null())
        .stderr(terminal.slave.try_clone().unwrap())
        .spawn()
        .unwrap();
    let host = nix::unistd::gethostname().unwrap().into_string().unwrap();
    let lines = terminal.until("the fault acts", |lines| {
        faults(lines).iter().any(|line| line.ends_with(" left"))
    });
    let fault = faults(&lines)[0];
    let wanted = format!("  ⚡ rest  process-pause  {host}  ");
    assert!(fault.starts_with(&wanted), "{fault}");
    let injected = format!("rest on {host}: injected: ");
    assert!(
        lines.iter().any(|line| line.contains(&injected)),
        "{lines:#?}"
    );
    for columns in [40, 24, 90] {
        terminal.resize(columns, 30);
        let name = &wanted[..wanted.len().min(usize::from(columns) - 4)];
        terminal.until("the view is drawn anew", |lines| {
            faults(lines).len() == 1
                && lines
                    .iter()
                    .filter(|line| line.starts_with("  always"))
                    .count()
                    == 1
                && faults(lines)[0].starts_with(name)
        });
    }
    let reverted = format!("rest on {host}: reverted in ");
    assert_eq!(run.wait().unwrap().code(), Some(0));
    let lines = terminal.until("the run is over", |lines| {
        lines.iter().any(|line| line.contains(&reverted))
    });
    assert!(faults(&lines).is_empty(), "{lines:#?}");
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
}
