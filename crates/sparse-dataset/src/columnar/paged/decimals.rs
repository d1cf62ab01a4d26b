//! Decimals that take the same few bytes each, where our writer would make integers of them.

use std::sync::Arc;

use parquet::basic::{LogicalType, Type as Physical};
use parquet::errors::Result;
use parquet::schema::types::{ColumnDescriptor, SchemaDescriptor, Type};

/// Whether a column is of decimals that would fit into integers and are none.
pub(super) fn is_fixed(column: &ColumnDescriptor) -> bool {
    let is_decimal = matches!(column.logical_type_ref(), Some(LogicalType::Decimal { .. }));
    is_decimal
        && column.physical_type() == Physical::FIXED_LEN_BYTE_ARRAY
        && column.type_precision() <= 18
}

/// A schema with all decimals of that kind.
pub(super) fn fixed(schema: &SchemaDescriptor) -> Result<SchemaDescriptor> {
    let root = schema.root_schema();
    let fields = root.get_fields().iter();
    let fields = fields.map(|field| fixed_type(field).map(Arc::new));
    let root = Type::group_type_builder(root.name()).with_fields(fields.collect::<Result<_>>()?);
    Ok(SchemaDescriptor::new(Arc::new(root.build()?)))
}

fn fixed_type(field: &Type) -> Result<Type> {
    let info = field.get_basic_info();
    let id = info.has_id().then(|| info.id());
    if field.is_group() {
        let fields = field.get_fields().iter();
        let fields = fields.map(|field| fixed_type(field).map(Arc::new));
        return Type::group_type_builder(field.name())
            .with_repetition(info.repetition())
            .with_converted_type(info.converted_type())
            .with_logical_type(info.logical_type_ref().cloned())
            .with_fields(fields.collect::<Result<_>>()?)
            .with_id(id)
            .build();
    }
    match (field.get_physical_type(), info.logical_type_ref()) {
        (Physical::INT32 | Physical::INT64, Some(&LogicalType::Decimal { precision, scale })) => {
            Type::primitive_type_builder(field.name(), Physical::FIXED_LEN_BYTE_ARRAY)
                .with_repetition(info.repetition())
                .with_converted_type(info.converted_type())
                .with_logical_type(info.logical_type_ref().cloned())
                .with_precision(precision)
                .with_scale(scale)
                .with_length(bytes_of(precision))
                .with_id(id)
                .build()
        }
        _ => Ok(field.clone()),
    }
}

/// Bytes that hold any number of so many digits, with its sign.
fn bytes_of(precision: i32) -> i32 {
    let largest = 10i128.pow(precision.clamp(0, 38) as u32) - 1;
    (largest.ilog2() + 2).div_ceil(8) as i32
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use parquet::schema::parser::parse_message_type;
    use parquet::schema::printer::print_schema;

    #[test]
    fn decimals_take_as_many_bytes_as_their_digits_need() {
        for (precision, bytes) in [
            (1, 1),
            (2, 1),
            (3, 2),
            (4, 2),
            (5, 3),
            (9, 4),
            (12, 6),
            (18, 8),
        ] {
            assert_eq!(bytes_of(precision), bytes, "{precision}");
        }
        let schema = |text: &str| {
            let root = parse_message_type(text).unwrap();
            SchemaDescriptor::new(Arc::new(root))
        };
        let integers = schema(
            "message arrow_schema { required int32 a; optional group l (LIST) { repeated group list \
             { optional int64 element (DECIMAL(12,2)); } } optional int32 d (DECIMAL(7,3)); }",
        );
        let wanted = schema(
            "message arrow_schema { required int32 a; optional group l (LIST) { repeated group list \
             { optional fixed_len_byte_array(6) element (DECIMAL(12,2)); } } \
             optional fixed_len_byte_array(4) d (DECIMAL(7,3)); }",
        );
        let shown = |schema: &SchemaDescriptor| {
            let mut out = Vec::new();
            print_schema(&mut out, schema.root_schema());
            String::from_utf8(out).unwrap()
        };
        assert_eq!(shown(&fixed(&integers).unwrap()), shown(&wanted));
        assert!(is_fixed(&wanted.column(1)) && !is_fixed(&integers.column(1)));
    }
}
