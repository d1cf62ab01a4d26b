use super::*;
use crate::kernels::matmul::tests::noise;

/// Reproducible bytes.
fn bytes(len: usize, seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let step = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 11) as u8
    };
    std::iter::repeat_with(step).take(len).collect()
}

fn halves(len: usize, seed: u32) -> Vec<u16> {
    let half = |value: f32| half::f16::from_f32(value).to_bits();
    noise(len, seed).into_iter().map(half).collect()
}

fn per_group(kind: usize, panels: usize, groups: usize, seed: u32) -> PerGroup {
    let len = panels * groups * WIDTH;
    match kind {
        0 => PerGroup::F16(halves(len, seed)),
        1 => PerGroup::F32(noise(len, seed)),
        _ => PerGroup::Nested {
            fine: halves(len, seed),
            coarse: noise(panels * groups.div_ceil(3) * WIDTH, seed + 1),
            span: 3,
        },
    }
}

/// Matrices with every kind of code, of number and of offset, with a last group that is shorter.
fn every_kind() -> Vec<Panels> {
    let (panels, blocks) = (2, 7);
    let mut all = Vec::new();
    for kind in 0..4 {
        for (block, group_blocks) in [(16, 1), (16, 2), (32, 1), (32, 2)] {
            let groups = usize::div_ceil(blocks, group_blocks);
            for number in 0..3 {
                let len = panels * blocks * block * WIDTH;
                let codes = match kind {
                    0 => Codes::Nibbles(bytes(len / 2, 1)),
                    1 => Codes::Bytes(bytes(len, 2)),
                    2 => Codes::Sixes(bytes(len / 4 * 3, 10)),
                    _ => {
                        let table: [u8; 16] = bytes(16, 3).try_into().unwrap();
                        Codes::Table(bytes(len / 2, 4), table.map(|byte| byte as i8))
                    }
                };
                let offsets = match (number + kind) % 4 {
                    0 => Offsets::None,
                    1 => Offsets::Zero(8.0),
                    2 => Offsets::Zeros(per_group(number, panels, groups, 5)),
                    _ => Offsets::Values(per_group(number, panels, groups, 6)),
                };
                all.push(Panels {
                    codes,
                    block,
                    blocks,
                    group_blocks,
                    scales: per_group(number, panels, groups, 7),
                    offsets,
                });
            }
        }
    }
    // Codes at the ends of their ranges, where sums of 16 bits are fullest.
    for codes in [
        Codes::Nibbles(vec![0xff; 16 * 32]),
        Codes::Bytes(vec![0x80; 32 * 32]),
        Codes::Sixes(vec![0; 24 * 32]),
        Codes::Sixes(vec![0xff; 24 * 32]),
    ] {
        all.push(Panels {
            codes,
            block: 32,
            blocks: 1,
            group_blocks: 1,
            scales: per_group(1, 2, 1, 8),
            offsets: Offsets::Zero(1.0),
        });
    }
    all
}

fn activations(level: Level, panels: &Panels, rows: usize, extreme: bool) -> Activations {
    let width = panels.blocks * panels.block;
    let mut x = Activations::default();
    for row in 0..rows {
        let mut values = noise(width, 20 + row as u32);
        if extreme {
            values.fill(if row % 2 == 0 { 1.0 } else { -1.0 });
        }
        x.push(level, &values, panels);
    }
    x
}

fn bits(values: &[[f32; WIDTH]]) -> Vec<[u32; WIDTH]> {
    values.iter().map(|row| row.map(f32::to_bits)).collect()
}

#[test]
fn every_level_gives_the_same_bits() {
    for panels in every_kind() {
        for extreme in [false, true] {
            let x = activations(Level::Scalar, &panels, 6, extreme);
            for (first, rows) in [(0, 1), (3, 1), (1, 2), (2, 3), (2, 4)] {
                for panel in 0..2 {
                    let product = |level| {
                        let mut out = vec![[f32::NAN; WIDTH]; rows];
                        let mut numbers = PanelNumbers::default();
                        numbers.fill(level, &panels, panel, rows);
                        multiply(level, &x, first, &panels, panel, &numbers, &mut out);
                        out
                    };
                    let expected = product(Level::Scalar);
                    for level in Level::available() {
                        let found = product(level);
                        assert_eq!(bits(&found), bits(&expected), "{level:?} {panels:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn products_are_those_of_the_definition() {
    for panels in every_kind() {
        let x = activations(Level::Scalar, &panels, 1, false);
        let groups = panels.groups();
        for panel in 0..2 {
            let mut out = [[0.0; WIDTH]];
            let mut numbers = PanelNumbers::default();
            numbers.fill(Level::detect(), &panels, panel, 1);
            multiply(Level::detect(), &x, 0, &panels, panel, &numbers, &mut out);
            for (lane, &found) in out[0].iter().enumerate() {
                let mut exact = 0.0;
                let mut magnitude = 0.0;
                for (input, &code) in x.codes.iter().enumerate() {
                    let block = input / panels.block;
                    let group = block / panels.group_blocks;
                    let scale = panels.scales.at(groups, panel, group, lane);
                    let offset = panels.offset(panel, group, lane, scale);
                    let weight = f64::from(scale) * f64::from(panels.code(panel, input, lane))
                        + f64::from(offset);
                    let x = f64::from(code) * f64::from(x.scales[block]);
                    exact += weight * x;
                    magnitude += (weight * x).abs();
                }
                assert!((f64::from(found) - exact).abs() <= 1e-5 * (magnitude + 1.0));
            }
        }
    }
}

#[test]
fn activations_are_rounded_alike_and_to_the_nearest_step() {
    let panels = &every_kind()[0];
    let width = panels.blocks * panels.block;
    let mut values = noise(width, 3);
    values[0] = 1e30;
    values[panels.block..2 * panels.block].fill(0.0);
    values[2 * panels.block] = 1e-40;
    for level in Level::available() {
        let mut x = Activations::default();
        x.push(level, &values, panels);
        let mut plain = Activations::default();
        plain.push(Level::Scalar, &values, panels);
        assert_eq!((&x.codes, &x.scales), (&plain.codes, &plain.scales));
        for (at, (&value, &code)) in values.iter().zip(&x.codes).enumerate() {
            let scale = x.scales[at / panels.block];
            assert!((value - f32::from(code) * scale).abs() <= 0.5001 * scale + 1e-38);
        }
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut values = values.clone();
            values[5] = bad;
            let mut x = Activations::default();
            x.push(level, &values, panels);
            assert!(x.scales[0].is_nan() && x.scales[1] == 0.0);
        }
    }
}

#[test]
fn every_level_widens_to_the_same_bits() {
    let table: [f32; 16] = noise(16, 9).try_into().unwrap();
    for panels in every_kind() {
        let groups = panels.groups();
        let table = matches!(panels.codes, Codes::Table(..)).then_some(&table);
        // The last columns of the last block are padding.
        let columns = panels.blocks * panels.block - 3;
        for panel in 0..2 {
            for level in Level::available() {
                let mut out = vec![f32::NAN; columns * WIDTH];
                widen(level, &panels, panel, table, &mut out);
                for (at, found) in out.iter().enumerate() {
                    let (column, lane) = (at / WIDTH, at % WIDTH);
                    let group = column / panels.block / panels.group_blocks;
                    let number = match table {
                        Some(table) => table[usize::from(panels.stored(panel, column, lane))],
                        None => panels.code(panel, column, lane) as f32,
                    };
                    let scale = panels.scales.at(groups, panel, group, lane);
                    let expected = scale * number + panels.offset(panel, group, lane, scale);
                    assert_eq!(found.to_bits(), expected.to_bits());
                }
            }
        }
    }
}
