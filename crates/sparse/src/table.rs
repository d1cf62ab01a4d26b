//! Short tables and numbers for people, within 80 columns.

/// Bytes with three significant digits.
pub fn bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    if value < 1000.0 {
        return format!("{bytes} B");
    }
    for unit in ["kB", "MB", "GB", "TB"] {
        value /= 1000.0;
        if value < 999.5 || unit == "TB" {
            let digits = if value < 9.995 {
                2
            } else {
                usize::from(value < 99.95)
            };
            return format!("{value:.digits$} {unit}");
        }
    }
    String::new()
}

/// A count with thin groups: 5,853,184.
pub fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A figure with its standard error, where it has one.
pub fn with_error(value: f64, error: Option<f64>, digits: usize) -> String {
    match error {
        Some(error) => format!("{value:.digits$} ± {error:.digits$}"),
        None => format!("{value:.digits$}"),
    }
}

/// Seconds with a fitting unit.
pub fn seconds(seconds: f64) -> String {
    if seconds < 1.0 {
        format!("{:.0} ms", seconds * 1e3)
    } else if seconds < 120.0 {
        format!("{seconds:.1} s")
    } else {
        format!(
            "{:.0} min {:.0} s",
            (seconds / 60.0).floor(),
            seconds % 60.0
        )
    }
}

/// Lines of a label and a value, the values aligned; a long value goes on in the next line.
pub fn fields(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|r| r.0.len()).max().unwrap_or(0);
    let line = |(label, value): &(&str, String)| {
        broken(value, format!("{label:width$}  "), width + 2, false)
    };
    rows.iter().map(line).collect()
}

/// A text from somewhere else without what would move the cursor, colour what follows, or turn the
/// order of letters: such characters as escapes.
pub fn plain(text: &str) -> String {
    let harmless = |c: char| {
        let turns = matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
            || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}');
        !c.is_control() && !turns
    };
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if harmless(c) {
            out.push(c);
        } else {
            out.extend(c.escape_default());
        }
    }
    out
}

/// Shortens a [`plain`] text to `width` characters, in the middle: names differ at both ends.
pub fn shorten(text: &str, width: usize) -> String {
    let text = plain(text);
    let length = text.chars().count();
    if length <= width {
        return text;
    }
    let head = (width - 1) / 2;
    let tail = width - 1 - head;
    text.chars()
        .take(head)
        .chain(std::iter::once('…'))
        .chain(text.chars().skip(length - tail))
        .collect()
}

/// Breaks a text into lines of at most 80 characters, at spaces where there are any; every
/// line begins with `indent` spaces, those after the first with two more.
pub fn wrap(text: &str, indent: usize) -> String {
    broken(text, " ".repeat(indent), indent + 2, true)
}

/// Breaks a text into lines of at most 80 characters; the first goes on from `line`, the others are
/// indented. A word that no line can hold is cut, or else goes beyond.
fn broken(text: &str, mut line: String, indent: usize, cut: bool) -> String {
    let mut out = String::new();
    let mut width = line.chars().count();
    let mut start = width;
    for word in text.split_inclusive(' ') {
        let mut letters: Vec<char> = word.chars().collect();
        while width + letters.len() > 80 {
            if cut && (width == indent || letters.len() > 80 - indent) {
                let rest = letters.split_off((80 - width).min(letters.len()));
                line.extend(letters);
                letters = rest;
            } else if !cut && width == start {
                break;
            }
            out.push_str(line.trim_end());
            out.push('\n');
            line = " ".repeat(indent);
            (width, start) = (indent, indent);
        }
        width += letters.len();
        line.extend(letters);
    }
    out + line.trim_end() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1234), "1.23 kB");
        assert_eq!(bytes(12_345_678), "12.3 MB");
        assert_eq!(bytes(999_999_999), "1.00 GB");
        assert_eq!(bytes(u64::MAX), "18446744 TB");
        assert_eq!(count(5_853_184), "5,853,184");
        assert_eq!(with_error(1.25, Some(0.5), 2), "1.25 ± 0.50");
        assert_eq!(with_error(1.25, None, 1), "1.2");
        assert_eq!(seconds(0.0123), "12 ms");
        assert_eq!(seconds(125.0), "2 min 5 s");
        assert_eq!(shorten("abcdefghij", 5), "ab…ij");
    }

    #[test]
    fn names_cannot_forge_lines() {
        assert_eq!(plain("größe 大 é"), "größe 大 é");
        assert_eq!(plain("\u{1b}[31m\nrow"), "\\u{1b}[31m\\nrow");
        assert_eq!(shorten("a\u{202e}b", 20), "a\\u{202e}b");
    }

    #[test]
    fn long_fields_go_on_in_the_next_line() {
        let text = fields(&[("a", "b".to_owned()), ("as", "word ".repeat(30))]);
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
        assert_eq!(text.lines().nth(2).map(|line| &line[..5]), Some("    w"));
        assert_eq!(
            fields(&[("as", "x".repeat(90))]),
            format!("as  {}\n", "x".repeat(90))
        );
    }

    #[test]
    fn long_lines_are_broken() {
        assert_eq!(wrap("a b", 2), "  a b\n");
        let words = wrap(&"word ".repeat(40), 4);
        let letters = wrap(&"x".repeat(400), 4);
        for text in [&words, &letters] {
            assert!(text.lines().all(|line| line.chars().count() <= 80));
        }
        assert_eq!(words.matches("word").count(), 40);
        assert_eq!(letters.matches('x').count(), 400);
    }
}
