//! Progress on a terminal, and the wish to stop.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use indicatif::{ProgressBar, ProgressStyle};
use sparse_delta::Progress;

/// A bar on stderr with rate and time left.
#[derive(Debug)]
pub struct Bar {
    shown: bool,
    bar: Mutex<ProgressBar>,
    interrupted: Arc<AtomicBool>,
}

impl Bar {
    /// Shown or not, it passes `interrupted` on.
    pub fn new(shown: bool, interrupted: Arc<AtomicBool>) -> Self {
        Self {
            shown,
            bar: Mutex::new(ProgressBar::hidden()),
            interrupted,
        }
    }

    fn with(&self, f: impl FnOnce(&mut ProgressBar)) {
        if let Ok(mut bar) = self.bar.lock() {
            f(&mut bar);
        }
    }

    /// Begins a phase that is counted in `unit`s rather than bytes.
    pub fn start_count(&self, phase: &'static str, unit: &str, count: u64) {
        if !self.shown {
            return;
        }
        let template =
            format!("{{msg:>12}} [{{bar:24}}] {{pos}}/{{len}} {unit} {{per_sec}} {{eta}}");
        self.begin(&template, phase.to_owned(), count);
    }

    fn begin(&self, template: &str, phase: String, length: u64) {
        let style = ProgressStyle::with_template(template)
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("=> ");
        self.with(|bar| {
            bar.finish_and_clear();
            *bar = ProgressBar::new(length)
                .with_style(style)
                .with_message(phase);
        });
    }

    /// Takes the bar off the screen.
    pub fn clear(&self) {
        self.with(|bar| bar.finish_and_clear());
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.clear();
    }
}

impl Progress for Bar {
    fn start(&self, phase: &'static str, bytes: u64) {
        if !self.shown {
            return;
        }
        let template = "{msg:>12} [{bar:24}] {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta}";
        self.begin(template, phase.to_owned(), bytes);
    }

    fn advance(&self, bytes: u64) {
        if self.shown {
            self.with(|bar| bar.inc(bytes));
        }
    }

    fn cancelled(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }
}

impl Bar {
    /// The share of a stage that is done.
    fn share(&self, stage: &str, done: u64, total: u64) {
        if !self.shown {
            return;
        }
        self.with(|bar| {
            if bar.message() != stage {
                let template = "{msg:>22} [{bar:24}] {percent:>3}% {eta}";
                let style = ProgressStyle::with_template(template)
                    .unwrap_or_else(|_| ProgressStyle::default_bar())
                    .progress_chars("=> ");
                bar.finish_and_clear();
                *bar = ProgressBar::new(total)
                    .with_style(style)
                    .with_message(stage.to_owned());
            }
            bar.set_length(total);
            bar.set_position(done);
        });
    }
}

/// Steps of a stage: rows of one stage, bytes of another, so the bar shows their share.
impl sparse_dataset::Progress for Bar {
    fn step(&self, stage: &str, done: u64, total: u64) {
        self.share(stage, done, total);
    }

    fn cancelled(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }
}

impl sparse_quant::Progress for Bar {
    fn step(&self, stage: &str, done: u64, total: u64) {
        self.share(stage, done, total);
    }

    fn cancelled(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }
}

impl sparse_eval::Progress for Bar {
    fn advance(&self, done: u64) {
        Progress::advance(self, done);
    }

    fn cancelled(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }
}
