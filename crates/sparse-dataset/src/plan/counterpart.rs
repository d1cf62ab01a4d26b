//! Which base column a column goes back to, and whether two cells have the same
//! value however their formats write it.

use super::{Plan, WORTHWHILE};
use crate::table::{Kind, Scales};

/// The base column that a column goes back to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counterpart {
    pub(crate) base: u32,
    base_scale: i8,
    own_scale: i8,
}

/// The last part of a dotted name.
pub(crate) fn last_part(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or_default()
}

impl Plan {
    /// How many in a hundred cells of a column are as predicted.
    pub(crate) fn share(&self, column: usize) -> u8 {
        self.shares.get(column).copied().unwrap_or(100)
    }

    /// For each column, all of whose names are `columns`, the base column that it
    /// goes back to, by its place in the plan: the one that it copies if that has
    /// its name, or is there no more under its own; else the one of its name.
    pub(crate) fn counterparts(&self, columns: &[String]) -> Vec<Option<u32>> {
        let bases = &self.base_columns;
        let place = |fits: &dyn Fn(&str) -> bool| bases.iter().position(|base| fits(base));
        let pairs = self.columns.iter().zip(columns).enumerate();
        pairs
            .map(|(column, (plan, name))| {
                let copied = plan.predictor.copied_base().filter(|&base| {
                    let copied = &bases[base as usize];
                    last_part(copied) == last_part(name)
                        || !columns.contains(copied) && self.share(column) >= WORTHWHILE
                });
                let named = place(&|base| base == name)
                    .or_else(|| place(&|base| last_part(base) == last_part(name)));
                copied.or(named.map(|named| named as u32))
            })
            .collect()
    }

    /// The same with the numbers that base columns have in the base rows, which
    /// `number` gives.
    pub(crate) fn resolved_counterparts(
        &self,
        columns: &[String],
        own: &Scales,
        base: &Scales,
        mut number: impl FnMut(&str) -> u32,
    ) -> Vec<Option<Counterpart>> {
        let scale = |scales: &Scales, name: &str| scales.get(name).copied().unwrap_or(0);
        let found = self.counterparts(columns).into_iter().zip(columns);
        found
            .map(|(found, name)| {
                let column = &self.base_columns[found? as usize];
                Some(Counterpart {
                    base: number(column),
                    base_scale: scale(base, column),
                    own_scale: scale(own, name),
                })
            })
            .collect()
    }
}

impl Counterpart {
    /// Whether a base cell and a cell have the same value.
    pub(crate) fn same(&self, base: (Kind, &[u8]), own: (Kind, &[u8])) -> bool {
        if base.1 == own.1 && self.base_scale == self.own_scale {
            // Delimited text has no nulls but empty fields.
            return true;
        }
        let value = |bytes, scale| Value::of(bytes, scale);
        match (value(base.1, self.base_scale), value(own.1, self.own_scale)) {
            (Some(base), Some(own)) => base.same(&own),
            _ => false,
        }
    }
}

/// A cell that formats write in more than one way.
enum Value {
    Truth(bool),
    /// An integer over a power of ten.
    Number(i128, i32),
    Float(f64),
    /// Nanoseconds since 1970.
    Time(i128),
}

const DAY: i128 = 86_400 * SECOND;
const SECOND: i128 = 1_000_000_000;

impl Value {
    fn of(bytes: &[u8], scale: i8) -> Option<Self> {
        if bytes.len() > 40 {
            return None;
        }
        let text = std::str::from_utf8(bytes).ok()?;
        match text {
            "true" | "True" | "TRUE" => return Some(Self::Truth(true)),
            "false" | "False" | "FALSE" => return Some(Self::Truth(false)),
            _ => {}
        }
        if let Some(number) = decimal(text, i32::from(scale)) {
            return Some(number);
        }
        if let Some(time) = time(text) {
            return Some(Self::Time(time));
        }
        let first = *bytes.first()?;
        let written = (first.is_ascii_digit() || first == b'-') && text.contains(['e', 'E']);
        text.parse().ok().filter(|_| written).map(Self::Float)
    }

    fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Truth(one), Self::Truth(other)) => one == other,
            (Self::Number(one, digits), Self::Number(other, others)) => {
                one == other && digits == others
            }
            (Self::Time(one), Self::Time(other)) => one == other,
            // Columnar files keep times as integers since 1970, in one of these units.
            (Self::Time(time), Self::Number(number, 0))
            | (Self::Number(number, 0), Self::Time(time)) => {
                let units = [DAY, SECOND, 1_000_000, 1_000, 1];
                units
                    .iter()
                    .any(|unit| number.checked_mul(*unit) == Some(*time))
            }
            (one, other) => match (one.float(), other.float()) {
                (Some(one), Some(other)) => one == other,
                _ => false,
            },
        }
    }

    fn float(&self) -> Option<f64> {
        match *self {
            Self::Number(number, digits) => Some(number as f64 / 10f64.powi(digits)),
            Self::Float(float) => Some(float),
            _ => None,
        }
    }
}

/// A decimal number without an exponent, its last zeros behind the point left
/// out. An integer is of so many more digits as `scale` says. Leading zeros
/// make text of a number: a postal code.
fn decimal(text: &str, scale: i32) -> Option<Value> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty()
        || whole.len() > 1 && whole.starts_with('0')
        || !plain(whole)
        || !plain(part)
    {
        return None;
    }
    let mut number: i128 = format!("{whole}{part}").parse().ok()?;
    let mut digits = part.len() as i32 + if part.is_empty() { scale } else { 0 };
    while digits > 0 && number % 10 == 0 {
        number /= 10;
        digits -= 1;
    }
    if text.starts_with('-') {
        number = -number;
    }
    Some(Value::Number(number, digits))
}

/// `2024-05-01`, or with a time of day: nanoseconds since 1970.
fn time(text: &str) -> Option<i128> {
    let number = |from: usize, to: usize| -> Option<i128> {
        let part = text.get(from..to)?;
        let plain = part.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| part.parse().ok())?
    };
    let bytes = text.as_bytes();
    if bytes.get(4) != Some(&b'-') || bytes.get(7) != Some(&b'-') {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    // Days since 1970, with years that start in March.
    let year = if month > 2 { year } else { year - 1 };
    let days =
        365 * year + year / 4 - year / 100 + year / 400 + (153 * ((month + 9) % 12) + 2) / 5 + day
            - 1
            - 719_468;
    let Some(rest) = text.get(10..).filter(|rest| !rest.is_empty()) else {
        return Some(days * DAY);
    };
    if !rest.starts_with([' ', 'T']) || bytes.get(13) != Some(&b':') || bytes.get(16) != Some(&b':')
    {
        return None;
    }
    let seconds = (number(11, 13)? * 60 + number(14, 16)?) * 60 + number(17, 19)?;
    let rest = text.get(19..)?;
    let rest = rest.strip_suffix('Z').unwrap_or(rest);
    let rest = rest.strip_suffix("+00:00").unwrap_or(rest);
    let nanoseconds: i128 = match rest.strip_prefix('.') {
        Some(part) if !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()) => {
            format!("{part:0<9}").get(..9)?.parse().ok()?
        }
        Some(_) => return None,
        None if rest.is_empty() => 0,
        None => return None,
    };
    Some(days * DAY + seconds * SECOND + nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(base: &str, own: &str, scales: (i8, i8)) -> bool {
        let counterpart = Counterpart {
            base: 0,
            base_scale: scales.0,
            own_scale: scales.1,
        };
        counterpart.same((Kind::Text, base.as_bytes()), (Kind::Raw, own.as_bytes()))
    }

    #[test]
    fn values_are_the_same_in_any_spelling() {
        for (one, other) in [
            ("3", "3.0"),
            ("-0.5", "-5e-1"),
            ("True", "true"),
            ("1e3", "1000"),
            ("1970-01-02", "1"),
            ("2024-02-29", "19782"),
            ("2024-02-29 12:00:00", "1709208000000000"),
            ("2024-02-29T12:00:00.250Z", "1709208000250"),
        ] {
            assert!(same(one, other, (0, 0)), "{one} {other}");
            assert!(same(other, one, (0, 0)), "{other} {one}");
        }
        assert!(same("12.50", "1250", (0, 2)));
        assert!(same("1250", "12.5", (2, 0)));
    }

    #[test]
    fn other_values_are_not() {
        for (one, other) in [
            ("pos", "neg"),
            ("3", "4"),
            ("007", "7"),
            ("12.5", "125"),
            ("", "0"),
            ("2024-02-29", "19783"),
            ("inf", "infinity"),
            ("9007199254740993", "9007199254740992"),
        ] {
            assert!(!same(one, other, (0, 0)), "{one} {other}");
        }
        assert!(!same("1250", "1250", (2, 0)));
    }
}
