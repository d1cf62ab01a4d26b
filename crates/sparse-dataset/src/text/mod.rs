//! Text formats: files as records, records as templates and cells.

mod delimited;
mod json;
mod leaf;
mod parser;
mod spelling;
mod survey;
mod template;

pub(crate) use delimited::Dialect;
pub(crate) use json::{Fault, JsonScanner};
pub(crate) use leaf::{elements, members, value_end};
pub(crate) use parser::{Layout, RecordParser};
pub(crate) use spelling::{Spelling, unescape};
pub(crate) use survey::Survey;
pub(crate) use template::{Columns, Template};
