//! The JSON shape of a header, before any of it is believed.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess};

use super::MAX_DIMENSIONS;
use crate::Dtype;
use crate::json::{Quoted, UniqueMap};

pub(super) struct RawHeader {
    /// In file order; names may still repeat.
    pub tensors: Vec<(String, RawInfo)>,
    pub metadata: BTreeMap<String, String>,
}

#[derive(Deserialize)]
pub(super) struct RawInfo {
    pub dtype: Dtype,
    pub shape: Shape,
    pub data_offsets: (u64, u64),
}

pub(super) struct Shape(pub Vec<u64>);

pub(super) fn parse(text: &str) -> Result<RawHeader, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = RawHeader;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeader, A::Error> {
                let mut tensors = Vec::new();
                let mut metadata = None;
                while let Some(name) = map.next_key::<String>()? {
                    if name != "__metadata__" {
                        let info = map.next_value().map_err(|error| in_tensor(&name, error))?;
                        tensors.push((name, info));
                    } else if metadata.is_some() {
                        return Err(de::Error::custom("__metadata__ appears twice"));
                    } else {
                        let entries: Option<UniqueMap<String>> =
                            map.next_value().map_err(|error| in_tensor(&name, error))?;
                        metadata =
                            Some(entries.map_or_else(Vec::new, |UniqueMap(entries)| entries));
                    }
                }
                let metadata = metadata.into_iter().flatten().collect();
                Ok(RawHeader { tensors, metadata })
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

fn in_tensor<E: de::Error>(name: &str, error: E) -> E {
    E::custom(format_args!("{}: {error}", Quoted(name)))
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Shape;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a shape: a list of sizes")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Shape, A::Error> {
                let mut shape = Vec::new();
                while let Some(size) = seq.next_element()? {
                    if shape.len() == MAX_DIMENSIONS {
                        return Err(de::Error::custom(format_args!(
                            "shape has more than {MAX_DIMENSIONS} dimensions"
                        )));
                    }
                    shape.push(size);
                }
                Ok(Shape(shape))
            }
        }
        deserializer.deserialize_seq(Visitor)
    }
}
