//! A tensor's scales as bytes.

use crate::binary::{BinaryDecoder, BinaryEncoder, Number};
use crate::bytes::{Reader, put_varint, unzigzag, zigzag};
use crate::fit::REACH;
use crate::{CodecError, Scales, TableSet};

impl TableSet {
    /// A set that codes nothing but escapes, for chunks that use no set.
    #[must_use]
    pub fn none() -> Self {
        let mut freqs = [0; 256];
        freqs[usize::from(crate::context::ESCAPE)] = 1;
        freqs[usize::from(crate::context::UNCHANGED)] = crate::rans::PROB_SCALE as u16 - 1;
        Self::from_frequencies(vec![0], vec![freqs])
    }
}

impl Scales {
    /// One scale for all rows and columns, where nothing is known yet.
    #[must_use]
    pub fn flat(width: usize) -> Self {
        Self {
            base: 0,
            segment: Self::segment_for(width) as u32,
            columns: Vec::new(),
        }
    }

    /// Appends the scales' bytes: base, segment length, number of columns, column offsets.
    pub fn write(&self, out: &mut Vec<u8>) {
        put_varint(out, u64::from(zigzag(i32::from(self.base))));
        put_varint(out, u64::from(self.segment));
        put_varint(out, self.columns.len() as u64);
        if self.columns.is_empty() {
            return;
        }
        let mut coder = BinaryEncoder::new();
        let mut model = Number::NEW;
        let mut last = 0;
        for &column in &self.columns {
            model.encode(&mut coder, zigzag(i32::from(column) - last));
            last = i32::from(column);
        }
        let bytes = coder.finish();
        put_varint(out, bytes.len() as u64);
        out.extend_from_slice(&bytes);
    }

    /// Reads what [`Scales::write`] wrote, for a tensor whose rows are `width` weights long: a
    /// width that the caller knows to be real, for that many bytes may be allocated.
    ///
    /// # Errors
    /// [`CodecError`] for bytes that are no scales.
    pub fn read(reader: &mut Reader<'_>, width: usize) -> Result<Self, CodecError> {
        let base = reader.varint()?;
        let base = u16::try_from(base).map_err(|_| CodecError::Invalid {
            field: "scale of a tensor",
            found: base,
            expected: "a 16-bit number",
        })?;
        let segment = reader.length("segment length", 1 << 24)?.max(1) as u32;
        let count = reader.varint()?;
        if count != 0 && count != width as u64 {
            return Err(CodecError::Invalid {
                field: "number of columns",
                found: count,
                expected: "none or the tensor's width",
            });
        }
        let mut columns = Vec::new();
        if count > 0 {
            let len = reader.length("columns", reader.remaining())?;
            let mut coder = BinaryDecoder::new(reader.take(len)?);
            let mut model = Number::NEW;
            let mut last = 0i32;
            for _ in 0..count {
                last = last.saturating_add(unzigzag(model.decode(&mut coder)));
                if last.abs() > REACH {
                    return Err(CodecError::Invalid {
                        field: "scale of a column",
                        found: u64::from(last.unsigned_abs()),
                        expected: "at most 60",
                    });
                }
                columns.push(last as i8);
            }
            coder.finish("column scales")?;
        }
        Ok(Self {
            base: unzigzag(u32::from(base)) as i16,
            segment,
            columns,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn scales_round_trip(base in -8000i16..8000, segment in 1u32..5000, columns in proptest::collection::vec(-60i8..=60, 0..50)) {
            let scales = Scales { base, segment, columns };
            let mut bytes = Vec::new();
            scales.write(&mut bytes);
            let mut reader = Reader::new(&bytes, "test");
            prop_assert_eq!(&Scales::read(&mut reader, scales.columns.len()).unwrap(), &scales);
            prop_assert!(reader.finish().is_ok());
        }

        #[test]
        fn damaged_scales_give_an_error_or_scales(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = Scales::read(&mut Reader::new(&bytes, "test"), 20);
        }
    }
}
