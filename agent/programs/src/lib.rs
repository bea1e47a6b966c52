//! Starting a program without the detour that the C library takes: `execvp` hands a file that the kernel does not know to `/bin/sh`,
//! which then runs, say, Python's text as shell commands. Here the kernel's word is the last. A crate of its own, since a controller may be built without the agent.

use nix::libc::{self, c_char};
use std::ffi::{CString, OsStr};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How many bytes of a file tell what it is.
const HEAD_BYTES: u64 = 256;

/// Where programs are looked for when there is no `PATH`, as by the C library.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// What would do, for a file that the kernel does not run.
pub const PROGRAM_FORMS: &str = "begin it with a line such as `#!/bin/sh` or `#!/usr/bin/python3`, or name an ELF program: no shell runs \
                                 what the kernel does not";

/// Texts as system calls want them: the addresses of texts that end with a zero byte, and a null at the end.
struct TextArray {
    texts: Vec<CString>,
    addresses: Vec<*const c_char>,
}

// SAFETY: the addresses are those of `texts`, which nobody changes and which lives as long.
#[allow(unsafe_code)]
unsafe impl Send for TextArray {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl Sync for TextArray {}

impl TextArray {
    fn new(texts: Vec<CString>) -> Self {
        let addresses = texts.iter().map(|text| text.as_ptr());
        let addresses = addresses.chain([std::ptr::null()]).collect();
        TextArray { texts, addresses }
    }

    // Methods, so that a closure captures the whole, which may go to another thread, and not a field of it.
    fn texts(&self) -> &[CString] {
        &self.texts
    }

    fn as_ptr(&self) -> *const *const c_char {
        self.addresses.as_ptr()
    }
}

/// Has a command start its program by `execve`, and by nothing else. To be called last: arguments and variables that are added later are
/// not passed on. Its environment is what it was given by name, so it must have been cleared. `name` is what the program sees as its own.
///
/// # Errors
/// A text has a zero byte.
#[allow(unsafe_code)]
pub fn without_shell(command: &mut Command, name: Option<&OsStr>) -> io::Result<()> {
    let program = command.get_program();
    let arguments = [name.unwrap_or(program)].into_iter();
    let arguments = arguments.chain(command.get_args()).map(text);
    let arguments = TextArray::new(arguments.collect::<io::Result<_>>()?);
    let mut variables = Vec::new();
    let mut path = None;
    for (name, value) in command.get_envs() {
        let Some(value) = value else { continue };
        if name == "PATH" {
            path = Some(value);
        }
        variables.push(CString::new(
            [name.as_bytes(), b"=", value.as_bytes()].concat(),
        )?);
    }
    let variables = TextArray::new(variables);
    let files = candidates(program, path.unwrap_or(OsStr::new(DEFAULT_PATH)));
    let files = files.iter().map(|file| text(file.as_os_str()));
    let files = TextArray::new(files.collect::<io::Result<_>>()?);
    let start = move || {
        let mut last = libc::ENOENT;
        for file in files.texts() {
            // SAFETY: a path and two arrays of texts, each with a null at its end; all live until this process is another program.
            unsafe {
                libc::execve(file.as_ptr(), arguments.as_ptr(), variables.as_ptr());
            }
            match io::Error::last_os_error().raw_os_error() {
                Some(libc::ENOENT | libc::ENOTDIR) => {}
                Some(libc::EACCES) => last = libc::EACCES,
                other => return Err(io::Error::from_raw_os_error(other.unwrap_or(last))),
            }
        }
        Err(io::Error::from_raw_os_error(last))
    };
    // SAFETY: between fork and exec only execve is called, which is safe after a signal (signal-safety(7)); nothing is allocated and
    // no lock is taken.
    unsafe {
        command.pre_exec(start);
    }
    Ok(())
}

fn text(text: &OsStr) -> io::Result<CString> {
    Ok(CString::new(text.as_bytes())?)
}

/// The files that a program's name may mean: itself where it has a folder, else one in each folder of `PATH`.
fn candidates(program: &OsStr, path: &OsStr) -> Vec<PathBuf> {
    match program.as_bytes().contains(&b'/') {
        true => vec![program.into()],
        false => std::env::split_paths(path)
            .map(|folder| folder.join(program))
            .collect(),
    }
}

/// Why a program did not start, where the kernel's word says too little.
pub fn explain(error: io::Error, program: &Path) -> io::Error {
    match error.raw_os_error() {
        Some(libc::ENOEXEC) => io::Error::new(
            io::ErrorKind::InvalidData,
            format!("the kernel does not know it as a program of this machine; {PROGRAM_FORMS}"),
        ),
        Some(libc::ENOENT) if program.is_file() => io::Error::new(
            io::ErrorKind::NotFound,
            "the interpreter that its first line names, or the loader that it needs, is not there",
        ),
        _ => error,
    }
}

/// Whether a file begins as an ELF program or as a script that names its interpreter.
pub fn has_program_head(content: &[u8]) -> bool {
    content.starts_with(b"#!") || content.starts_with(b"\x7fELF")
}

/// Whether this is a text that names no interpreter, so that the kernel does not run it. False where it cannot be read.
#[allow(
    clippy::disallowed_methods,
    reason = "a file is read, and not waited for"
)]
pub fn is_bare_text(path: &Path) -> bool {
    let head = || -> io::Result<Vec<u8>> {
        let mut options = std::fs::OpenOptions::new();
        // What is no plain file might keep whoever opens it waiting.
        let options = options.read(true).custom_flags(libc::O_NONBLOCK);
        let mut head = Vec::new();
        options
            .open(path)?
            .take(HEAD_BYTES)
            .read_to_end(&mut head)?;
        Ok(head)
    };
    head().is_ok_and(|head| !has_program_head(&head) && !head.contains(&0))
}

#[cfg(test)]
#[allow(clippy::expect_used, clippy::disallowed_methods, reason = "tests")]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn start(content: &str, folder: &Path) -> io::Result<std::process::Output> {
        let file = folder.join("program");
        std::fs::write(&file, content)?;
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755))?;
        loop {
            let mut command = Command::new("program");
            command.env_clear().env("PATH", folder).arg("a b");
            without_shell(&mut command, None)?;
            match command.output() {
                // It was just written: a process that another test starts meanwhile has it open for a moment.
                Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => {}
                ended => return ended.map_err(|error| explain(error, &file)),
            }
        }
    }

    #[test]
    fn text_without_interpreter_started_is_refused_and_not_run() {
        let folder = tempfile::tempdir().expect("a folder");
        let ran = folder.path().join("ran");
        for content in ["", "\n", "echo x", "\x7fELF, more or less"] {
            let content = format!("{content}\necho > {}\n", ran.display());
            let error = start(&content, folder.path()).expect_err("it is not a program");
            assert!(error.to_string().contains("#!/usr/bin/python3"), "{error}");
        }
        // The interpreter itself is a text: the kernel does not know it either.
        std::fs::write(folder.path().join("text"), "echo").expect("written");
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(folder.path().join("text"), mode).expect("ours");
        let content = format!("#!{0}/text\necho > {0}/ran\n", folder.path().display());
        start(&content, folder.path()).expect_err("its interpreter is not a program");
        assert!(!ran.exists());
    }

    #[test]
    fn script_with_interpreter_started_gets_arguments_and_its_environment_only() {
        let folder = tempfile::tempdir().expect("a folder");
        let output =
            start("#!/bin/sh\necho \"$1\" $HOME $PATH\n", folder.path()).expect("it starts");
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(said, format!("a b {}\n", folder.path().display()));
    }

    #[test]
    fn script_with_missing_interpreter_started_says_so() {
        let folder = tempfile::tempdir().expect("a folder");
        let error = start("#!/nowhere/python3\n", folder.path()).expect_err("it is missing");
        assert!(error.to_string().contains("interpreter"), "{error}");
    }
}
