//! The bytes of a GGUF file, version 3: header, key-value pairs, tensor list, aligned data.

use crate::method::ggml::GgmlType;

/// `GGUF`, least significant byte first.
pub(super) const MAGIC: [u8; 4] = *b"GGUF";
pub(super) const VERSION: u32 = 3;
/// Every tensor begins at a multiple of this.
pub(super) const ALIGNMENT: u64 = 32;

/// A value of the key-value part.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// Any unsigned number.
    Unsigned(u64),
    /// Any signed number.
    Signed(i64),
    /// Any floating-point number.
    Float(f64),
    /// True or false.
    Bool(bool),
    /// Text.
    Text(String),
    /// Texts.
    Texts(Vec<String>),
    /// 32-bit signed numbers.
    Numbers(Vec<i32>),
    /// 32-bit floating-point numbers.
    Floats(Vec<f32>),
    /// Another kind of list, which is skipped.
    Other,
}

/// Numbers that stand for types of values.
pub(super) mod kind {
    pub const U32: u32 = 4;
    pub const I32: u32 = 5;
    pub const F32: u32 = 6;
    pub const BOOL: u32 = 7;
    pub const TEXT: u32 = 8;
    pub const LIST: u32 = 9;
}

/// A tensor in the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub name: String,
    /// Inputs first: the reverse of a checkpoint's order.
    pub dims: Vec<u64>,
    pub kind: GgmlType,
    /// From the beginning of the data.
    pub offset: u64,
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn value(out: &mut Vec<u8>, value: &Value) {
    let list = |out: &mut Vec<u8>, kind: u32, len: usize| {
        out.extend(kind::LIST.to_le_bytes());
        out.extend(kind.to_le_bytes());
        out.extend((len as u64).to_le_bytes());
    };
    match value {
        Value::Unsigned(number) => {
            out.extend(kind::U32.to_le_bytes());
            out.extend((*number as u32).to_le_bytes());
        }
        Value::Signed(number) => {
            out.extend(kind::I32.to_le_bytes());
            out.extend((*number as i32).to_le_bytes());
        }
        Value::Float(number) => {
            out.extend(kind::F32.to_le_bytes());
            out.extend((*number as f32).to_le_bytes());
        }
        Value::Bool(flag) => {
            out.extend(kind::BOOL.to_le_bytes());
            out.push(u8::from(*flag));
        }
        Value::Text(string) => {
            out.extend(kind::TEXT.to_le_bytes());
            text(out, string);
        }
        Value::Texts(strings) => {
            list(out, kind::TEXT, strings.len());
            for string in strings {
                text(out, string);
            }
        }
        Value::Numbers(numbers) => {
            list(out, kind::I32, numbers.len());
            out.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        }
        Value::Floats(numbers) => {
            list(out, kind::F32, numbers.len());
            out.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        }
        Value::Other => list(out, kind::I32, 0),
    }
}

/// Everything before the data, padded to where the data begins.
pub(super) fn head(pairs: &[(String, Value)], entries: &[Entry]) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend(VERSION.to_le_bytes());
    out.extend((entries.len() as u64).to_le_bytes());
    out.extend((pairs.len() as u64).to_le_bytes());
    for (key, one) in pairs {
        text(&mut out, key);
        value(&mut out, one);
    }
    for entry in entries {
        text(&mut out, &entry.name);
        out.extend((entry.dims.len() as u32).to_le_bytes());
        out.extend(entry.dims.iter().flat_map(|dim| dim.to_le_bytes()));
        out.extend(entry.kind.id().to_le_bytes());
        out.extend(entry.offset.to_le_bytes());
    }
    out.resize(out.len().next_multiple_of(ALIGNMENT as usize), 0);
    out
}
