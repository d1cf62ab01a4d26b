use super::*;
use proptest::prelude::*;

fn round_trip(set: &TableSet) -> usize {
    let mut bytes = Vec::new();
    set.write(&mut bytes);
    let mut reader = Reader::new(&bytes, "test");
    assert!(
        &TableSet::read(&mut reader).unwrap() == set,
        "tables changed"
    );
    reader.finish().unwrap();
    bytes.len()
}

proptest! {
    #[test]
    fn any_counts_make_tables_that_come_back(
        rows in proptest::collection::vec((proptest::collection::vec((any::<u8>(), 0u32..1_000_000), 0..256), any::<bool>()), 1..8),
    ) {
        let tables: Vec<_> = rows.iter().map(|(row, symmetric)| {
            let mut counts = [0u32; 256];
            for &(symbol, count) in row { counts[if *symmetric { symbol % 242 } else { symbol } as usize] = count; }
            frequencies(&counts, *symmetric)
        }).collect();
        for table in &tables {
            prop_assert_eq!(table.iter().map(|&f| u32::from(f)).sum::<u32>(), PROB_SCALE);
            prop_assert!(table.iter().all(|&f| u32::from(f) < PROB_SCALE));
        }
        let starts = (0..tables.len() as u8).map(|i| i * 7).collect();
        let _ = round_trip(&TableSet::from_frequencies(starts, tables));
    }

    #[test]
    fn damaged_sets_give_an_error_or_a_set(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(set) = TableSet::read(&mut Reader::new(&bytes, "test")) {
            for table in set.expanded() {
                prop_assert_eq!(table.iter().map(|&f| u32::from(f)).sum::<u32>(), PROB_SCALE);
                prop_assert!(table.iter().all(|&f| u32::from(f) < PROB_SCALE));
            }
        }
    }
}

#[test]
fn symmetric_tables_cost_half() {
    let counts: [u32; 256] =
        std::array::from_fn(|i| (100_000 >> i.abs_diff(121).min(31)) / (1 + i as u32 % 3));
    let one = round_trip(&TableSet::from_frequencies(
        vec![0],
        vec![frequencies(&counts, true)],
    ));
    let two = round_trip(&TableSet::from_frequencies(
        vec![0],
        vec![frequencies(&counts, false)],
    ));
    assert!(one < two && one < 40, "{one} {two}");
}
