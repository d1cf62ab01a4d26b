//! Members of a JSON object, with types, ranges and defaults.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::Error;

/// Nothing that exists is larger, and products of three such sizes do not overflow.
const MAX_SIZE: u64 = 1 << 20;

/// The members of a configuration, and where it is from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'a> {
    members: &'a Map<String, Value>,
    path: &'a Path,
    /// What messages put before a key: the name of the object, for a nested one.
    within: &'a str,
}

impl<'a> Fields<'a> {
    pub fn new(json: &'a Value, path: &'a Path) -> Result<Fields<'a>, Error> {
        let Some(members) = json.as_object() else {
            return Err(Error::Config {
                path: path.to_path_buf(),
                message: "not a JSON object".to_owned(),
            });
        };
        Ok(Fields {
            members,
            path,
            within: "",
        })
    }

    pub fn wrong(&self, message: String) -> Error {
        Error::Config {
            path: PathBuf::from(self.path),
            message: format!("{}{message}", self.within),
        }
    }

    fn expected(&self, key: &str, what: &str) -> Error {
        let found = self.members.get(key).unwrap_or(&Value::Null).to_string();
        let found: String = found.chars().take(60).collect();
        self.wrong(format!("{key} should be {what}, found {found}"))
    }

    /// The value, where there is one that is not null.
    pub fn get(&self, key: &str) -> Option<&'a Value> {
        self.members.get(key).filter(|value| !value.is_null())
    }

    /// Whether the key is there, if only as null.
    pub fn has(&self, key: &str) -> bool {
        self.members.contains_key(key)
    }

    pub fn text(&self, key: &str) -> Result<Option<&'a str>, Error> {
        self.get(key)
            .map(|value| value.as_str().ok_or_else(|| self.expected(key, "a string")))
            .transpose()
    }

    pub fn flag(&self, key: &str, default: bool) -> Result<bool, Error> {
        self.get(key).map_or(Ok(default), |value| {
            value
                .as_bool()
                .ok_or_else(|| self.expected(key, "true or false"))
        })
    }

    /// A size: a whole number above zero.
    pub fn size(&self, key: &str) -> Result<Option<usize>, Error> {
        self.get(key)
            .map(|value| match value.as_u64() {
                Some(size @ 1..=MAX_SIZE) => Ok(size as usize),
                _ => Err(self.expected(key, "a size")),
            })
            .transpose()
    }

    pub fn size_or(&self, key: &str, default: usize) -> Result<usize, Error> {
        Ok(self.size(key)?.unwrap_or(default))
    }

    /// Like [`Fields::size`], without the limit that keeps products small: a number of tokens.
    pub fn tokens(&self, key: &str) -> Result<Option<usize>, Error> {
        self.get(key)
            .map(|value| match value.as_u64() {
                Some(size) if size > 0 => Ok(usize::try_from(size).unwrap_or(usize::MAX)),
                _ => Err(self.expected(key, "a number of tokens")),
            })
            .transpose()
    }

    pub fn number(&self, key: &str) -> Result<Option<f64>, Error> {
        self.get(key)
            .map(|value| match value.as_f64() {
                Some(number) if number.is_finite() => Ok(number),
                _ => Err(self.expected(key, "a number")),
            })
            .transpose()
    }

    pub fn number_or(&self, key: &str, default: f64) -> Result<f64, Error> {
        Ok(self.number(key)?.unwrap_or(default))
    }

    /// A number above zero that must be there.
    pub fn positive(&self, key: &str) -> Result<f64, Error> {
        match self.number(key)? {
            Some(number) if number > 0.0 => Ok(number),
            _ => Err(self.expected(key, "a number above zero")),
        }
    }

    pub fn numbers(&self, key: &str) -> Result<Option<Vec<f64>>, Error> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let numbers = value.as_array().and_then(|items| {
            let finite = |item: &Value| item.as_f64().filter(|number| number.is_finite());
            items.iter().map(finite).collect::<Option<Vec<f64>>>()
        });
        numbers
            .map(Some)
            .ok_or_else(|| self.expected(key, "a list of numbers"))
    }

    pub fn texts(&self, key: &str) -> Result<Option<Vec<&'a str>>, Error> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let texts = value
            .as_array()
            .and_then(|items| items.iter().map(Value::as_str).collect::<Option<Vec<_>>>());
        texts
            .map(Some)
            .ok_or_else(|| self.expected(key, "a list of strings"))
    }

    pub fn nested(&self, key: &'a str, within: &'a str) -> Result<Option<Fields<'a>>, Error> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let Some(members) = value.as_object() else {
            return Err(self.expected(key, "an object"));
        };
        Ok(Some(Fields {
            members,
            path: self.path,
            within,
        }))
    }
}
