//! Chat templates: how a model was taught that conversations are written.

use std::fmt;

use minijinja::{Environment, ErrorKind, Value, context};
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};
use sparse_checkpoint::Checkpoint;

use crate::Error;
use crate::tokenizer::special_token;

/// The largest template that is read.
const MAX_BYTES: u64 = 1 << 20;

/// The special tokens that templates may name.
const SPECIAL: [&str; 5] = [
    "bos_token",
    "eos_token",
    "unk_token",
    "pad_token",
    "sep_token",
];

/// A checkpoint's chat template: Jinja, as transformers renders it.
pub struct ChatTemplate {
    environment: Environment<'static>,
    special: Vec<(&'static str, String)>,
}

/// Who says something in a conversation, and what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// `system`, `user`, `assistant`, or another that the template knows.
    pub role: String,
    /// What is said.
    pub content: String,
}

impl fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatTemplate")
            .field("special", &self.special)
            .finish_non_exhaustive()
    }
}

impl ChatTemplate {
    /// The template of a checkpoint: its `chat_template.jinja`, or what `tokenizer_config.json`
    /// holds.
    pub(crate) fn find(
        checkpoint: &Checkpoint,
        config: &serde_json::Value,
    ) -> Result<Option<ChatTemplate>, Error> {
        let source = if let Some(file) = checkpoint.file("chat_template.jinja") {
            let text = String::from_utf8(file.read(MAX_BYTES)?);
            Some(text.map_err(|_| failed("chat_template.jinja is not UTF-8"))?)
        } else {
            in_config(&config["chat_template"])
        };
        source
            .map(|source| ChatTemplate::new(&source, config))
            .transpose()
    }

    /// Parses a template; `config` is a `tokenizer_config.json`, for its special tokens.
    ///
    /// # Errors
    /// If the template is malformed.
    pub fn new(source: &str, config: &serde_json::Value) -> Result<ChatTemplate, Error> {
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<(), _> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_function("strftime_now", strftime_now);
        environment.add_filter("tojson", to_json);
        environment
            .add_template_owned("chat", source.to_owned())
            .map_err(|error| failed(&error.to_string()))?;
        let special = SPECIAL
            .iter()
            .filter_map(|&key| Some((key, special_token(&config[key])?)));
        Ok(ChatTemplate {
            special: special.collect(),
            environment,
        })
    }

    /// A conversation as text; `answer` adds what comes before an answer.
    ///
    /// # Errors
    /// If the template fails, or refuses the conversation.
    ///
    /// ```
    /// use sparse_engine::{ChatTemplate, Message};
    ///
    /// let template = "{% for m in messages %}<{{ m.role }}>{{ m['content'] }}\n{% endfor %}";
    /// let template = ChatTemplate::new(template, &serde_json::json!({}))?;
    /// let say = Message { role: "user".into(), content: "Hi".into() };
    /// assert_eq!(template.render(&[say], false)?, "<user>Hi\n");
    /// # Ok::<(), sparse_engine::Error>(())
    /// ```
    pub fn render(&self, messages: &[Message], answer: bool) -> Result<String, Error> {
        let messages: Vec<Value> = messages
            .iter()
            .map(|message| context! { role => message.role, content => message.content })
            .collect();
        let mut values = context! { messages, add_generation_prompt => answer };
        for (key, token) in &self.special {
            values = context! { ..Value::from_iter([(*key, token.as_str())]), ..values };
        }
        let template = self.environment.get_template("chat");
        let rendered = template.and_then(|template| template.render(values));
        rendered.map_err(|error| {
            let message = error
                .detail()
                .map_or_else(|| error.to_string(), str::to_owned);
            failed(&message)
        })
    }
}

/// A template, or a list of named ones of which one is the default.
fn in_config(value: &serde_json::Value) -> Option<String> {
    let text = value.as_str().or_else(|| {
        let named = value.as_array()?;
        named.iter().find(|one| one["name"] == "default")?["template"].as_str()
    });
    text.map(str::to_owned)
}

fn failed(message: &str) -> Error {
    Error::Template {
        message: message.to_owned(),
    }
}

/// Today's date, which some templates put into the system's message. A library does not read the
/// clock's time zone: days are those of UTC.
fn strftime_now(format: &str) -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let days = since.map_or(0, |since| since.as_secs() / 86400);
    let (year, month, day) = civil(days as i64);
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    let name = MONTHS[month as usize - 1];
    format
        .replace("%Y", &year.to_string())
        .replace("%m", &format!("{month:02}"))
        .replace("%d", &format!("{day:02}"))
        .replace("%B", name)
        .replace("%b", &name[..3])
}

/// Days since 1970 as year, month and day (Howard Hinnant's `civil_from_days`).
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

/// JSON as Python's `json.dumps` writes it, which is what transformers gives templates.
fn to_json(value: Value, options: minijinja::value::Kwargs) -> Result<Value, minijinja::Error> {
    let indent: Option<usize> = options.get("indent")?;
    // Python's other options change nothing that matters to a prompt, and are let pass.
    let _: Option<Value> = options.get("ensure_ascii")?;
    let mut bytes = Vec::new();
    let written = match indent {
        Some(indent) => {
            let spaces = " ".repeat(indent.min(16));
            let pretty = PrettyFormatter::with_indent(spaces.as_bytes());
            write_json(&value, Serializer::with_formatter(&mut bytes, pretty))
        }
        None => write_json(&value, Serializer::with_formatter(&mut bytes, Spaced)),
    };
    let text = written.and_then(|()| String::from_utf8(bytes).map_err(serde::ser::Error::custom));
    text.map(Value::from_safe_string)
        .map_err(|error| minijinja::Error::new(ErrorKind::BadSerialization, error.to_string()))
}

fn write_json<F: Formatter>(
    value: &Value,
    mut serializer: Serializer<&mut Vec<u8>, F>,
) -> serde_json::Result<()> {
    serde::Serialize::serialize(value, &mut serializer)
}

/// A space after every comma and colon.
struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first {
            Ok(())
        } else {
            writer.write_all(b", ")
        }
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first {
            Ok(())
        } else {
            writer.write_all(b", ")
        }
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
    ) -> std::io::Result<()> {
        writer.write_all(b": ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn render(template: &str) -> Result<String, Error> {
        let say = |role: &str, content: &str| Message {
            role: role.to_owned(),
            content: content.to_owned(),
        };
        let config = json!({"bos_token": {"content": "<s>"}, "eos_token": "</s>"});
        ChatTemplate::new(template, &config)?.render(&[say("user", " a<b "), say("x", "é")], true)
    }

    #[test]
    fn special_tokens_python_methods_and_json_are_those_of_transformers() {
        assert_eq!(
            render("{{ bos_token }}{{ messages[0].content.strip() }}{{ eos_token }}").unwrap(),
            "<s>a<b</s>"
        );
        assert_eq!(
            render("{{ messages | tojson }}").unwrap(),
            r#"[{"role": "user", "content": " a<b "}, {"role": "x", "content": "é"}]"#
        );
        assert_eq!(
            render("{% if add_generation_prompt %}\n  yes{% endif %}").unwrap(),
            "  yes"
        );
    }

    #[test]
    fn a_template_can_refuse_and_be_malformed() {
        let refused = render("{{ raise_exception('roles must alternate') }}").unwrap_err();
        assert_eq!(refused.to_string(), "chat template: roles must alternate");
        assert!(render("{% if %}").is_err());
    }

    #[test]
    fn days_become_dates() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(19_782), (2024, 2, 29));
        assert_eq!(civil(20_781), (2026, 11, 24));
        assert_eq!(strftime_now("%%").len(), 2);
    }
}
