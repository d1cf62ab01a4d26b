use proptest::prelude::*;

use super::*;

fn parse(text: &str, data_len: u64) -> Result<Header, HeaderError> {
    parse_header(text.as_bytes(), data_len)
}

fn message(text: &str, data_len: u64) -> String {
    parse(text, data_len).unwrap_err().to_string()
}

#[test]
fn tensors_come_by_offset_and_are_found_by_name() {
    let text = r#"{"__metadata__":{"format":"pt"},
        "b":{"dtype":"F16","shape":[2,2],"data_offsets":[4,12]},
        "a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}   "#;
    let header = parse(text, 12).unwrap();
    let names: Vec<_> = header.tensors().iter().map(TensorInfo::name).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(header.position("b"), Some(1));
    assert_eq!(header.position("c"), None);
    assert_eq!(header.text(), text, "kept verbatim, padding included");
    assert_eq!(header.metadata()["format"], "pt");
    let b = &header.tensors()[1];
    assert_eq!(
        (b.dtype(), b.shape(), b.range()),
        (Dtype::F16, &[2, 2][..], 4..12)
    );
    assert_eq!((b.elements(), b.bytes()), (4, 8));
}

#[test]
fn gaps_are_the_bytes_that_no_tensor_covers() {
    let text = r#"{"a":{"dtype":"U8","shape":[2],"data_offsets":[3,5]},
        "empty":{"dtype":"F32","shape":[0,7],"data_offsets":[6,6]},
        "b":{"dtype":"U8","shape":[1],"data_offsets":[8,9]}}"#;
    assert_eq!(parse(text, 12).unwrap().gaps(), [0..3, 5..8, 9..12]);
    assert_eq!(parse(text, 9).unwrap().gaps(), [0..3, 5..8]);
    assert_eq!(parse("{}", 5).unwrap().gaps().first(), Some(&(0..5)));
    assert!(parse("{}", 0).unwrap().gaps().is_empty());
}

#[test]
fn scalars_zero_sizes_and_packed_types() {
    let text = r#"{"scalar":{"dtype":"F64","shape":[],"data_offsets":[0,8]},
        "none":{"dtype":"BF16","shape":[3,0],"data_offsets":[4,4]},
        "packed":{"dtype":"F4","shape":[3,2],"data_offsets":[8,11]},
        "six":{"dtype":"F6_E2M3","shape":[4],"data_offsets":[11,14]}}"#;
    let header = parse(text, 14).unwrap();
    let elements: Vec<_> = header
        .tensors()
        .iter()
        .map(|t| (t.name(), t.elements()))
        .collect();
    assert_eq!(
        elements,
        [("scalar", 1), ("none", 0), ("packed", 6), ("six", 4)]
    );
}

#[test]
fn every_fault_is_named_with_its_tensor() {
    let one = |dtype: &str, shape: &str, offsets: &str| {
        format!(r#"{{"w":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#)
    };
    for (text, expected) in [
        (
            one("F16", "[2]", "[0,3]"),
            "F16 of shape [2] needs 4 bytes, data_offsets hold 3",
        ),
        (
            one("F16", "[2]", "[4,0]"),
            "data_offsets end at 0, before they begin at 4",
        ),
        (
            one("F16", "[2]", "[6,10]"),
            "ends at byte 10 of the data, which has 8",
        ),
        (
            one("F16", "[9223372036854775808,4]", "[0,8]"),
            "too large to address",
        ),
        (
            one("F16", "[9223372036854775807]", "[0,8]"),
            "too large to address",
        ),
        (
            one("F4", "[3]", "[0,1]"),
            "3 elements of F4 are not a whole number of bytes",
        ),
        (one("Q8", "[8]", "[0,8]"), "unknown dtype \"Q8\""),
        (one("F16", "[-4]", "[0,8]"), "invalid value: integer `-4`"),
        (one("F16", "[4.0]", "[0,8]"), "invalid type: floating point"),
        (one("F16", "4", "[0,8]"), "expected a shape"),
        (one("F16", "[4]", "[0,8,8]"), "trailing characters"),
        (one("F16", "[4]", "[0]"), "tuple of size 2"),
        (
            one("U8", &format!("[{}8]", "1,".repeat(64)), "[0,8]"),
            "more than 64 dimensions",
        ),
    ] {
        let found = message(&text, 8);
        assert!(found.contains("\"w\""), "{found} does not name the tensor");
        assert!(found.contains(expected), "{found}: no {expected}");
    }
}

#[test]
fn equal_keys_are_refused_wherever_they_are() {
    let w = r#""w":{"dtype":"U8","shape":[],"data_offsets":[0,1]}"#;
    let moved = r#""w":{"dtype":"U8","shape":[],"data_offsets":[1,2]}"#;
    let twice = parse(&format!("{{{w},{moved}}}"), 8).unwrap_err();
    assert_eq!(twice, HeaderError::Duplicate { tensor: "w".into() });
    assert!(parse(r#"{"__metadata__":{},"__metadata__":{}}"#, 0).is_err());
    assert!(parse(r#"{"__metadata__":{"a":"1","a":"2"}}"#, 0).is_err());
    let inside = r#"{"w":{"dtype":"U8","dtype":"U8","shape":[],"data_offsets":[0,1]}}"#;
    assert!(parse(inside, 1).is_err());
}

#[test]
fn overlaps_are_refused_and_both_tensors_named() {
    let text = r#"{"a":{"dtype":"U8","shape":[5],"data_offsets":[0,5]},
        "none":{"dtype":"U8","shape":[0],"data_offsets":[2,2]},
        "b":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}}"#;
    assert_eq!(
        message(text, 8),
        r#"tensors "a" and "b" overlap: 0..5 and 4..8"#
    );
}

#[test]
fn what_is_not_a_json_object_is_refused() {
    for text in ["", "{", "[]", "null", "{}{}", "{} x", "{\"a\":1}", "\u{0}"] {
        assert!(parse(text, 0).is_err(), "{text:?} was accepted");
    }
    assert_eq!(
        parse_header(b"{\"\xff\":0}", 0).unwrap_err(),
        HeaderError::NotUtf8 { valid_up_to: 2 }
    );
    assert!(
        parse(r#"{"__metadata__":null}"#, 0).is_ok(),
        "the reference reader takes it"
    );
    assert!(
        parse(r#"{"__metadata__":{"a":1}}"#, 0).is_err(),
        "only strings"
    );
}

#[test]
fn long_names_do_not_flood_the_message() {
    let name = "n".repeat(1 << 20);
    let text = format!(r#"{{"{name}":{{"dtype":"U8","shape":[1],"data_offsets":[0,2]}}}}"#);
    assert!(message(&text, 2).len() < 500);
}

#[test]
fn the_length_field_is_checked_before_anything_is_allocated() {
    assert_eq!(header_len(8u64.to_le_bytes(), 16), Ok(8));
    assert!(matches!(
        header_len(9u64.to_le_bytes(), 16),
        Err(HeaderError::TooShort { .. })
    ));
    assert!(matches!(
        header_len([0xff; 8], u64::MAX),
        Err(HeaderError::TooLong { .. })
    ));
    let over = (MAX_HEADER_BYTES + 1).to_le_bytes();
    assert!(matches!(
        header_len(over, u64::MAX),
        Err(HeaderError::TooLong { .. })
    ));
}

/// A header that is valid: tensors one after the other, with holes in between.
fn valid() -> impl Strategy<Value = (String, u64, usize)> {
    let dtype = proptest::sample::select(&Dtype::ALL[..]);
    let shape = proptest::collection::vec(0u64..5, 0..4);
    let tensor = ("[ -~é]{0,12}", dtype, shape, 0u64..3);
    proptest::collection::vec(tensor, 0..8).prop_map(|tensors| {
        let mut members = serde_json::Map::new();
        let mut end = 0;
        for (name, dtype, mut shape, gap) in tensors {
            shape.push(8); // whole bytes for packed types
            let bytes = shape.iter().product::<u64>() * u64::from(dtype.bits()) / 8;
            let offsets = [end + gap, end + gap + bytes];
            end += gap + bytes;
            let info = serde_json::json!({
                "dtype": dtype, "shape": shape, "data_offsets": offsets
            });
            members.insert(name, info);
        }
        let count = members.len();
        (serde_json::Value::Object(members).to_string(), end, count)
    })
}

proptest! {
    #[test]
    fn valid_headers_parse_and_account_for_every_byte((text, data_len, count) in valid()) {
        let header = parse(&text, data_len).unwrap();
        prop_assert_eq!(header.tensors().len(), count);
        let gaps: u64 = header.gaps().iter().map(|gap| gap.end - gap.start).sum();
        let tensors: u64 = header.tensors().iter().map(TensorInfo::bytes).sum();
        prop_assert_eq!(gaps + tensors, data_len);
        for (at, tensor) in header.tensors().iter().enumerate() {
            prop_assert_eq!(header.position(tensor.name()), Some(at));
        }
    }

    #[test]
    fn damaged_headers_never_panic(
        (text, data_len, _) in valid(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        keep in any::<prop::sample::Index>(),
    ) {
        let mut bytes = text.into_bytes();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(header) = parse_header(&bytes, data_len) {
            prop_assert!(header.tensors().iter().all(|tensor| tensor.range().end <= data_len));
        }
        prop_assert!(parse_header(&bytes[..keep.index(bytes.len())], data_len).is_err());
    }

    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,200}", data_len: u64) {
        let _ = parse(&text, data_len);
    }
}
