//! `sparse generate`: lets a model go on.

use std::io::{IsTerminal, Read, Write};
use std::ops::ControlFlow;

use serde_json::json;
use sparse_engine::{Activations, End, Error, Half, Message, Sampling, TextStream, Tokenizer};

use crate::context::{Context, Hinted, Outcome};
use crate::machine::peak_memory_bytes;
use crate::model::{self, Numbers};

/// What to say, and how to go on.
#[derive(Debug, clap::Args)]
pub struct GenerateArgs {
    /// Checkpoint directory or hub id (owner/name[@revision])
    model: String,
    /// Text to continue; - reads it from standard input
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    prompt: String,
    /// Tokens to generate at most
    #[arg(long, value_name = "N", default_value_t = 128)]
    max_tokens: usize,
    /// 0 always takes the most likely token; higher is more random
    #[arg(
        long,
        value_name = "T",
        default_value_t = 0.0,
        allow_hyphen_values = true
    )]
    temperature: f32,
    /// Choose among so many most likely tokens
    #[arg(long, value_name = "N")]
    top_k: Option<usize>,
    /// Choose among the most likely tokens that together have this probability
    #[arg(long, value_name = "P", allow_hyphen_values = true)]
    top_p: Option<f32>,
    /// The same seed makes the same choices
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// End before this text; may be given several times
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    stop: Vec<String>,
    /// The prompt is what a user says: write it by the model's chat template
    #[arg(long)]
    chat: bool,
    /// With --chat: what the system says before
    #[arg(
        long,
        value_name = "TEXT",
        requires = "chat",
        allow_hyphen_values = true
    )]
    system: Option<String>,
    /// Quantized layers: activations in f32, or rounded to int8, which is faster
    #[arg(long, value_name = "TYPE", default_value = "int8", value_parser = model::activations)]
    activations: Activations,
    /// Weights that are not quantized: round them to f16 or bf16 while loading
    #[arg(long, value_name = "TYPE", value_parser = model::weights)]
    weights: Option<Half>,
}

/// Generates.
pub fn run(args: GenerateArgs, context: &Context) -> anyhow::Result<Outcome> {
    let sampling = Sampling::random(args.temperature, args.top_k, args.top_p, args.seed)?;
    if args.stop.iter().any(String::is_empty) {
        // Every text ends before it.
        return Err(Hinted {
            message: "--stop should be a text, found an empty one".to_owned(),
            hint: "without --stop, a text ends where the model ends it".to_owned(),
        }
        .into());
    }
    let prompt = prompt_text(&args.prompt)?;
    let numbers = Numbers {
        activations: args.activations,
        weights: args.weights,
    };
    let loaded = model::load(&args.model, numbers, context)?;
    let tokenizer = loaded.tokenizer?;
    let tokens = if args.chat {
        chat_tokens(&tokenizer, prompt, args.system)?
    } else {
        tokenizer.encode_prompt(&prompt)?
    };
    let tokens = match (tokens.is_empty(), tokenizer.bos()) {
        (true, Some(bos)) => vec![bos],
        _ => tokens,
    };

    let mut writer = Writer {
        stream: TextStream::new(&tokenizer),
        stops: &args.stop,
        pending: String::new(),
        text: String::new(),
        shown: !context.json(),
        failure: None,
    };
    let mut each = |token| {
        if context.interrupted() {
            return ControlFlow::Break(());
        }
        writer.push(token)
    };
    let stops = tokenizer.stops();
    let made = loaded
        .model
        .generate(&tokens, args.max_tokens, stops, sampling, &mut each)?;
    let text = writer.finish()?;
    if context.interrupted() {
        return Err(Error::Interrupted.into());
    }

    let steps: f64 = made
        .steps
        .iter()
        .map(std::time::Duration::as_secs_f64)
        .sum();
    let seconds = made.first.as_secs_f64() + steps;
    let decode_rate = if steps > 0.0 {
        made.steps.len() as f64 / steps
    } else {
        0.0
    };
    let end = if made.end == End::Caller {
        "stop"
    } else {
        made.end.name()
    };
    if context.json() {
        let value = json!({
            "text": text,
            "tokens": made.tokens.len(),
            "token_ids": made.tokens,
            "prompt_tokens": tokens.len(),
            "end": end,
            "time_to_first_token_ms": made.first.as_secs_f64() * 1e3,
            "tokens_per_second": decode_rate,
            "seconds": seconds,
            "peak_memory_bytes": peak_memory_bytes(),
        });
        context.emit(&value, "")?;
    } else {
        context.emit(&json!(null), "\n")?;
        if std::io::stderr().is_terminal() {
            context.note(&format!(
                "{} tokens, {decode_rate:.1} tokens/s, first after {:.0} ms, end: {end}",
                made.tokens.len(),
                made.first.as_secs_f64() * 1e3,
            ));
        }
    }
    Ok(Outcome::Yes)
}

fn prompt_text(prompt: &str) -> anyhow::Result<String> {
    if prompt != "-" {
        return Ok(prompt.to_owned());
    }
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .map_err(|error| Hinted {
            message: format!("cannot read the prompt from standard input: {error}"),
            hint: "the prompt must be UTF-8 text".to_owned(),
        })?;
    Ok(text)
}

fn chat_tokens(
    tokenizer: &Tokenizer,
    prompt: String,
    system: Option<String>,
) -> anyhow::Result<Vec<u32>> {
    let unusable = |message| Hinted {
        message,
        hint: "without --chat, the prompt is continued as it is".to_owned(),
    };
    let template = match tokenizer.chat_template() {
        Ok(Some(template)) => template,
        Ok(None) => return Err(unusable("the checkpoint has no chat template".to_owned()).into()),
        Err(error) => return Err(unusable(error.to_string()).into()),
    };
    let say = |role: &str, content| Message {
        role: role.to_owned(),
        content,
    };
    let mut messages: Vec<Message> = system.into_iter().map(|text| say("system", text)).collect();
    messages.push(say("user", prompt));
    // The template writes the special tokens itself.
    Ok(tokenizer.encode(&template.render(&messages, true)?)?)
}

/// Writes text as it comes, but what may become a stop text.
struct Writer<'a> {
    stream: TextStream<'a>,
    stops: &'a [String],
    pending: String,
    text: String,
    shown: bool,
    failure: Option<Error>,
}

impl Writer<'_> {
    fn push(&mut self, token: u32) -> ControlFlow<()> {
        match self.stream.push(token) {
            Ok(new) => self.pending.push_str(&new),
            Err(error) => {
                self.failure = Some(error);
                return ControlFlow::Break(());
            }
        }
        let stop = self
            .stops
            .iter()
            .filter_map(|stop| self.pending.find(stop.as_str()))
            .min();
        if let Some(at) = stop {
            self.pending.truncate(at);
            self.show(at);
            return ControlFlow::Break(());
        }
        self.show(self.pending.len() - self.held_back());
        ControlFlow::Continue(())
    }

    /// Bytes at the end of what is pending that a stop text may begin with.
    fn held_back(&self) -> usize {
        let begins = |stop: &String| {
            (1..stop.len())
                .rev()
                .find(|&len| stop.is_char_boundary(len) && self.pending.ends_with(&stop[..len]))
        };
        self.stops.iter().filter_map(begins).max().unwrap_or(0)
    }

    fn show(&mut self, bytes: usize) {
        let new: String = self.pending.drain(..bytes).collect();
        if self.shown && !new.is_empty() {
            let mut out = std::io::stdout().lock();
            let written = out.write_all(new.as_bytes()).and_then(|()| out.flush());
            if written.is_err_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe) {
                std::process::exit(0); // the reader has seen enough
            }
        }
        self.text.push_str(&new);
    }

    fn finish(mut self) -> Result<String, Error> {
        if let Some(error) = self.failure {
            return Err(error);
        }
        self.show(self.pending.len());
        Ok(self.text)
    }
}
