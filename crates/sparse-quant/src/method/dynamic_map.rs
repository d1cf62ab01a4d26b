//! bitsandbytes' signed 8-bit dynamic map: seven decades, each with twice the steps of the one
//! below.

use std::sync::LazyLock;

/// The 256 values, ascending.
pub static DYNAMIC_MAP: LazyLock<[f32; 256]> = LazyLock::new(|| {
    let mut values = vec![0.0, 1.0];
    for decade in 0..7 {
        let steps = 1usize << decade;
        let scale = 10f64.powi(decade - 6) as f32;
        // torch.linspace(0.1, 1, steps + 1): counted from whichever end is nearer, fused.
        let step = (1.0 - 0.1f32) / steps as f32;
        let boundary = |at: usize| {
            if at < steps.div_ceil(2) {
                step.mul_add(at as f32, 0.1)
            } else {
                step.mul_add(-((steps - at) as f32), 1.0)
            }
        };
        for at in 0..steps {
            let mean = scale * ((boundary(at) + boundary(at + 1)) / 2.0);
            values.extend([mean, -mean]);
        }
    }
    values.sort_by(f32::total_cmp);
    let mut map = [0.0; 256];
    map.copy_from_slice(&values);
    map
});

/// Entries of the library's own table of nearest codes over [-1, 1].
const BINS: usize = 1 << 16;

static NEAREST: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let map = &*DYNAMIC_MAP;
    let mut code = 0;
    (0..BINS)
        .map(|bin| {
            let value = -1.0 + (2.0 * bin as f32) / (BINS - 1) as f32;
            while code < 255 && 0.5 * (map[code] + map[code + 1]) < value {
                code += 1;
            }
            code as u8
        })
        .collect()
});

/// The code of a value in [-1, 1], through the same bins as the library.
pub fn nearest_dynamic(value: f32) -> u8 {
    let value = value.clamp(-1.0, 1.0);
    let bin = ((value + 1.0) * 0.5).mul_add((BINS - 1) as f32, 0.5);
    NEAREST[bin as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_ascends_and_holds_what_the_paper_says() {
        let map = &*DYNAMIC_MAP;
        assert!(map.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!((map[127], map[255]), (0.0, 1.0));
        assert!((map[254] - 0.992_968_75).abs() < 1e-6, "{}", map[254]);
        assert!((map[128] - 5.5e-7).abs() < 1e-12, "{}", map[128]);
    }

    #[test]
    fn values_go_to_a_near_code() {
        for code in 0..=255u8 {
            let value = DYNAMIC_MAP[usize::from(code)];
            let found = DYNAMIC_MAP[usize::from(nearest_dynamic(value))];
            assert!(
                (value - found).abs() <= 2.0 / BINS as f32,
                "{value} {found}"
            );
        }
    }
}
