//! Chat templates: how a model was taught that conversations are written.

use std::fmt;
use std::ops::Range;

use minijinja::{Environment, ErrorKind, Value, context};
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};
use sparse_checkpoint::Checkpoint;

use crate::Error;
use crate::tokenizer::special_token;

/// The largest template that is read.
const MAX_BYTES: u64 = 1 << 20;

/// Steps after which a template is given up: real ones take some hundreds for each message.
const MAX_STEPS: u64 = 10_000_000;

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
        ChatTemplate::source(checkpoint, config)?
            .map(|source| ChatTemplate::new(&source, config))
            .transpose()
    }

    /// The text of a checkpoint's template, not parsed: that of its `chat_template.jinja`, or of
    /// `config`, its `tokenizer_config.json`.
    ///
    /// # Errors
    /// If the file cannot be read or is not UTF-8.
    pub fn source(
        checkpoint: &Checkpoint,
        config: &serde_json::Value,
    ) -> Result<Option<String>, Error> {
        let Some(file) = checkpoint.file("chat_template.jinja") else {
            return Ok(in_config(&config["chat_template"]));
        };
        let text = String::from_utf8(file.read(MAX_BYTES)?);
        let text = text.map_err(|_| failed("chat_template.jinja is not UTF-8"))?;
        Ok(Some(text))
    }

    /// Parses a template; `config` is a `tokenizer_config.json`, for its special tokens.
    ///
    /// # Errors
    /// If the template is malformed.
    pub fn new(source: &str, config: &serde_json::Value) -> Result<ChatTemplate, Error> {
        let mut environment = Environment::new();
        environment.set_fuel(Some(MAX_STEPS));
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
            .add_template_owned("chat", generation_as_with(source))
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
        // transformers hands over both, if only as none: templates ask `is not none`.
        let mut values = context! {
            messages,
            tools => (),
            documents => (),
            add_generation_prompt => answer,
        };
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

/// A template whose `generation` blocks, which transformers adds to Jinja, are `with` blocks.
///
/// They mark what an assistant says, for training, and render as what they hold; like `with`, they
/// are a scope. minijinja has no hook for a tag of one's own. Where words alone are replaced, the
/// whitespace around a tag is trimmed as its author asked for. Strings, comments and raw text stay.
fn generation_as_with(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = find_tag(rest) {
        let (text, from_tag) = rest.split_at(start);
        let (tag, later) = from_tag.split_at(tag_length(from_tag));
        out.push_str(text);
        let word = first_word(tag);
        let new = match &tag[word.clone()] {
            "generation" => "with",
            "endgeneration" => "endwith",
            other => other,
        };
        out.push_str(&tag[..word.start]);
        out.push_str(new);
        out.push_str(&tag[word.end..]);
        rest = later;
    }
    out + rest
}

/// Where the next block, expression or comment begins.
fn find_tag(text: &str) -> Option<usize> {
    let mut braces = text.match_indices('{').map(|(at, _)| at);
    let follows = |at: usize| text.as_bytes().get(at + 1);
    braces.find(|&at| matches!(follows(at), Some(b'%' | b'{' | b'#')))
}

/// The length of the tag that `text` begins with; raw text belongs to the tag before it. One that
/// nobody has closed goes to the end, for the parser to complain about.
fn tag_length(text: &str) -> usize {
    let end = match text.get(..2) {
        Some("{#") => text[2..].find("#}").map(|at| at + 4),
        Some("{{") => closed(text, "}}"),
        _ => closed(text, "%}"),
    };
    let end = end.unwrap_or(text.len());
    if &text[first_word(text)] != "raw" {
        return end;
    }
    let mut tags = text[end..].match_indices("{%").map(|(at, _)| end + at);
    let last = tags.find(|&at| &text[at..][first_word(&text[at..])] == "endraw");
    let over = last.and_then(|at| Some(at + closed(&text[at..], "%}")?));
    over.unwrap_or(text.len())
}

/// Where the tag that `text` begins with is over: at its `end` outside of strings and brackets.
fn closed(text: &str, end: &str) -> Option<usize> {
    let (mut quote, mut depth) = (None, 0_usize);
    let mut bytes = text.bytes().enumerate().skip(2);
    while let Some((at, byte)) = bytes.next() {
        match (quote, byte) {
            (Some(_), b'\\') => {
                bytes.next();
            }
            (Some(open), _) if byte == open => quote = None,
            (Some(_), _) => {}
            (None, _) if depth == 0 && text.as_bytes()[at..].starts_with(end.as_bytes()) => {
                return Some(at + end.len());
            }
            (None, b'"' | b'\'') => quote = Some(byte),
            (None, b'(' | b'[' | b'{') => depth += 1,
            (None, b')' | b']' | b'}') => depth = depth.saturating_sub(1),
            (None, _) => {}
        }
    }
    None
}

/// Where the word is that says what a block does; empty for what is no block.
fn first_word(tag: &str) -> Range<usize> {
    let Some(inside) = tag.strip_prefix("{%") else {
        return 0..0;
    };
    let inside = inside.strip_prefix(['-', '+']).unwrap_or(inside);
    let inside = inside.trim_start();
    let start = tag.len() - inside.len();
    let is_word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let end = inside.find(|letter| !is_word(letter));
    start..end.map_or(tag.len(), |length| start + length)
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
    strftime(
        format,
        since.map_or(0, |since| since.as_secs() / 86400) as i64,
    )
}

/// A day, counted from 1970, as Python's `strftime` writes it; directives other than those of dates
/// are left as they are.
fn strftime(format: &str, days: i64) -> String {
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
    let (year, month, day) = civil(days);
    let name = MONTHS[month as usize - 1];
    let mut out = String::new();
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            out.push(letter);
            continue;
        }
        match letters.next() {
            Some('Y') => out += &year.to_string(),
            Some('m') => out += &format!("{month:02}"),
            Some('d') => out += &format!("{day:02}"),
            Some('B') => out += name,
            Some('b') => out += &name[..3],
            Some('%') => out.push('%'),
            other => {
                out.push('%');
                out.extend(other);
            }
        }
    }
    out
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
    fn generation_blocks_render_what_they_hold() {
        for (template, expected) in [
            (
                "a\n  {% generation %}\n b {% endgeneration %}\nc",
                "a\n b c",
            ),
            ("a {%- generation -%} b {%- endgeneration -%} c", "abc"),
            ("a {%+ generation +%} b {%endgeneration%} c", "a  b  c"),
            (
                "{% generation %}{% set x = 1 %}{% endgeneration %}{{ x is defined }}",
                "False",
            ),
            ("{{ '{% generation %}' }}", "{% generation %}"),
            (
                "{{ {'a': {'b': '}}\\''}}.a.b }}{% generation %}{% endgeneration %}",
                "}}'",
            ),
            ("{# {% generation %} #}a", "a"),
            (
                "{% raw %}{{ {% generation %}{% endraw %}{%- generation %}b{% endgeneration %}",
                "{{ {% generation %}b",
            ),
            ("{% set generation = 'a' %}{{ generation }}", "a"),
        ] {
            assert_eq!(render(template).unwrap(), expected, "{template:?}");
        }
        for template in [
            "{% generation %}",
            "{% endgeneration %}",
            "{% generation",
            "{{ '",
            "{#",
            "{% raw %}{% generation %}",
        ] {
            assert!(render(template).is_err(), "{template:?}");
        }
    }

    #[test]
    fn what_transformers_passes_without_tools_is_none() {
        let template = "{% if tools is not none or documents is not none %}tools{% endif %}\
                        {% if tools is defined and documents is defined %}defined{% endif %}";
        assert_eq!(render(template).unwrap(), "defined");
    }

    #[test]
    fn a_template_is_one_text_or_named_default_among_several() {
        assert_eq!(in_config(&json!("a")), Some("a".to_owned()));
        let named = json!([
            {"name": "tool_use", "template": "b"},
            {"name": "default", "template": "c"},
        ]);
        assert_eq!(in_config(&named), Some("c".to_owned()));
        assert_eq!(in_config(&json!([{"name": "rag", "template": "b"}])), None);
        assert_eq!(in_config(&json!(null)), None);
    }

    #[test]
    fn a_template_can_refuse_and_be_malformed() {
        let refused = render("{{ raise_exception('roles must alternate') }}").unwrap_err();
        assert_eq!(refused.to_string(), "chat template: roles must alternate");
        assert!(render("{% if %}").is_err());
        let endless =
            "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}";
        assert!(render(endless).is_err());
    }

    #[test]
    fn days_become_dates() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(19_782), (2024, 2, 29));
        assert_eq!(civil(20_781), (2026, 11, 24));
        assert_eq!(
            strftime("%d %B (%b, %m) %Y", 19_782),
            "29 February (Feb, 02) 2024"
        );
        assert_eq!(strftime("%%d is %d; %H, %", 19_782), "%d is 29; %H, %");
        assert_eq!(strftime_now("%%"), "%");
    }
}
