//! Codes of 2 to 8 bits in 32-bit words, densely, the least significant bits first.

/// Words that `count` codes of `bits` bits take.
pub(crate) fn packed_words(count: usize, bits: u32) -> usize {
    (count * bits as usize).div_ceil(32)
}

/// Packs codes; a code that does not fit in the rest of a word goes on in the next.
pub(crate) fn pack(codes: impl IntoIterator<Item = u8>, bits: u32, words: &mut [u32]) {
    words.fill(0);
    for (at, code) in codes.into_iter().enumerate() {
        let start = at * bits as usize;
        let (word, offset) = (start / 32, (start % 32) as u32);
        let wide = u64::from(code) << offset;
        words[word] |= wide as u32;
        if offset + bits > 32 {
            words[word + 1] |= (wide >> 32) as u32;
        }
    }
}

/// The code at a place of packed words.
pub(crate) fn code_at(words: impl Fn(usize) -> u32, bits: u32, at: usize) -> u8 {
    let start = at * bits as usize;
    let (word, offset) = (start / 32, (start % 32) as u32);
    let mut wide = u64::from(words(word)) >> offset;
    if offset + bits > 32 {
        wide |= u64::from(words(word + 1)) << (32 - offset);
    }
    (wide & ((1 << bits) - 1)) as u8
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn codes_come_back(
            bits in 2u32..=8,
            codes in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let codes: Vec<u8> = codes.iter().map(|code| code & ((1u16 << bits) - 1) as u8).collect();
            let mut words = vec![u32::MAX; packed_words(codes.len(), bits)];
            pack(codes.iter().copied(), bits, &mut words);
            for (at, &code) in codes.iter().enumerate() {
                prop_assert_eq!(code_at(|word| words[word], bits, at), code);
            }
        }
    }

    #[test]
    fn three_bits_carry_from_word_to_word() {
        let mut words = [0; 3];
        pack(std::iter::repeat_n(5, 32), 3, &mut words);
        // 101 over and over: the eleventh code has two bits in the first word, one in the second.
        assert_eq!(words, [0x6db6_db6d, 0xdb6d_b6db, 0xb6db_6db6]);
    }
}
