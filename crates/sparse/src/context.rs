//! What every subcommand shares: flags, output, errors, interruption.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use sparse_checkpoint::Existing;

use crate::progress::Bar;

/// How a command ended that did what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Done.
    Yes,
    /// The answer is no.
    No,
}

/// Flags and output of one run.
#[derive(Debug)]
pub struct Context {
    json: bool,
    force: bool,
    quiet: bool,
    threads: usize,
    interrupted: Arc<AtomicBool>,
}

impl Context {
    /// From the common flags; also starts to listen for Ctrl-C.
    pub fn new(json: bool, force: bool, threads: Option<u16>, quiet: bool) -> Self {
        let interrupted = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&interrupted);
        // Without a handler, Ctrl-C ends the process at once and may leave a temporary folder:
        // no reason not to run.
        let _ = ctrlc::set_handler(move || {
            // The second one does not wait for the clean-up.
            if flag.swap(true, Ordering::Relaxed) {
                std::process::exit(130);
            }
        });
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            json,
            force,
            quiet,
            threads: threads.map_or(cpus, usize::from),
            interrupted,
        }
    }

    /// Whether results are one JSON object.
    pub fn json(&self) -> bool {
        self.json
    }

    /// Whether somebody pressed Ctrl-C.
    pub fn interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// Threads to use.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// What to do about an existing output.
    pub fn existing(&self) -> Existing {
        if self.force {
            Existing::Replace
        } else {
            Existing::Keep
        }
    }

    /// Refuses an output that exists before anything slow is done.
    pub fn check_output(&self, output: &Path) -> anyhow::Result<()> {
        if self.existing() == Existing::Keep && output.symlink_metadata().is_ok() {
            let path = output.to_owned();
            return Err(sparse_checkpoint::Error::OutputExists { path }.into());
        }
        Ok(())
    }

    /// A progress bar, shown only on a terminal.
    pub fn bar(&self) -> Bar {
        let shown = !self.quiet && !self.json && io::stderr().is_terminal();
        Bar::new(shown, Arc::clone(&self.interrupted))
    }

    /// Prints results: `value` under `--json`, else `text`.
    pub fn emit(&self, value: &serde_json::Value, text: &str) -> anyhow::Result<()> {
        if self.json {
            print(&format!("{value:#}\n"))
        } else {
            print(text)
        }
    }

    /// Prints what verifying a delta found; `rebuilt` is what was checked beside the delta itself,
    /// where its base was given.
    pub fn verdict(&self, problems: &[String], rebuilt: Option<&str>) -> anyhow::Result<Outcome> {
        let ok = problems.is_empty();
        let mut text: String = problems
            .iter()
            .map(|problem| format!("problem: {problem}\n"))
            .collect();
        text.push_str(&match (ok, rebuilt) {
            (true, Some(rebuilt)) => format!("ok: the delta is whole and {rebuilt}\n"),
            (true, None) => {
                "ok: the delta is whole (with --base, rebuilding is checked too)\n".to_owned()
            }
            (false, _) => "not ok\n".to_owned(),
        });
        self.emit(&json!({"ok": ok, "problems": problems}), &text)?;
        Ok(if ok { Outcome::Yes } else { Outcome::No })
    }

    /// Tells people something that does not stop the work.
    pub fn warn(&self, message: &str) {
        if !self.json && !self.quiet {
            let _ = io::stderr().write_all(format!("warning: {message}\n").as_bytes());
        }
    }

    /// Tells people something beside the results.
    pub fn note(&self, message: &str) {
        if !self.json && !self.quiet {
            let _ = io::stderr().write_all(format!("{message}\n").as_bytes());
        }
    }

    /// Reports an error and gives the exit code for it.
    pub fn fail(&self, error: &anyhow::Error) -> ExitCode {
        report(self.json, &error.to_string(), hint(error).as_deref());
        ExitCode::from(if is_interruption(error) { 130 } else { 2 })
    }
}

/// Writes to stdout. A reader that has gone away is no error: the exit code still tells how it
/// ended.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(anyhow::anyhow!("cannot write to standard output: {error}"))
        }
        _ => Ok(()),
    }
}

/// An error of the command's own, with a hint.
#[derive(Debug)]
pub struct Hinted {
    /// What is wrong.
    pub message: String,
    /// What to do next.
    pub hint: String,
}

impl std::fmt::Display for Hinted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Hinted {}

fn is_interruption(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref::<sparse_checkpoint::Error>(),
        Some(sparse_checkpoint::Error::Interrupted)
    ) || matches!(
        error.downcast_ref::<sparse_delta::Error>(),
        Some(sparse_delta::Error::Interrupted)
    ) || matches!(
        error.downcast_ref::<sparse_dataset::Error>(),
        Some(sparse_dataset::Error::Interrupted)
    ) || matches!(
        error.downcast_ref::<sparse_quant::Error>(),
        Some(sparse_quant::Error::Interrupted)
    ) || matches!(
        error.downcast_ref::<sparse_engine::Error>(),
        Some(sparse_engine::Error::Interrupted)
    ) || matches!(
        error.downcast_ref::<sparse_eval::Error>(),
        Some(sparse_eval::Error::Interrupted)
    )
}

fn hint(error: &anyhow::Error) -> Option<String> {
    if let Some(error) = error.downcast_ref::<sparse_delta::Error>() {
        return error.hint();
    }
    if let Some(error) = error.downcast_ref::<sparse_checkpoint::Error>() {
        return error.hint();
    }
    if let Some(error) = error.downcast_ref::<sparse_quant::Error>() {
        return error.hint();
    }
    if let Some(error) = error.downcast_ref::<sparse_dataset::Error>() {
        return error.hint().map(str::to_owned);
    }
    if let Some(error) = error.downcast_ref::<sparse_engine::Error>() {
        return error.hint();
    }
    if let Some(error) = error.downcast_ref::<sparse_eval::Error>() {
        return error.hint();
    }
    error.downcast_ref::<Hinted>().map(|e| e.hint.clone())
}

fn report(json: bool, message: &str, hint: Option<&str>) {
    if json {
        // Nobody is left to tell if this fails.
        let _ = print(&format!("{:#}\n", json!({"error": message, "hint": hint})));
        return;
    }
    let mut text = format!("error: {message}\n");
    if let Some(hint) = hint {
        let _ = writeln!(text, "hint: {hint}");
    }
    let _ = io::stderr().write_all(text.as_bytes());
}

/// Help, version, or what is wrong with the arguments.
pub fn usage_error(error: &clap::Error) -> ExitCode {
    let asked_for_json = std::env::args_os().any(|arg| arg == "--json");
    if error.use_stderr() && asked_for_json {
        let text = error.render().to_string();
        // The first paragraph: missing arguments are listed below the first line.
        let lines = text
            .lines()
            .map(str::trim)
            .take_while(|line| !line.is_empty());
        let message = lines.collect::<Vec<_>>().join(" ");
        let message = message.strip_prefix("error: ").unwrap_or(&message);
        report(true, message, Some("see --help"));
        return ExitCode::from(2);
    }
    // Nobody is left to tell if this fails.
    let _ = error.print();
    ExitCode::from(if error.use_stderr() { 2 } else { 0 })
}
