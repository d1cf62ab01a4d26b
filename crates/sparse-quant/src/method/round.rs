//! Rounding to whole numbers without a call for each: such as a processor does on many at once.

/// Added to a number and taken off again it leaves the nearest whole one, half to even.
const ONES: f32 = 1.5 * (1 << 23) as f32;

/// The nearest whole number, half to even, of one within 2²².
#[inline]
pub(crate) fn nearest(value: f32) -> f32 {
    value + ONES - ONES
}

/// [`nearest`] as an integer.
#[inline]
pub(crate) fn nearest_integer(value: f32) -> i32 {
    (value + ONES).to_bits() as i32 - ONES.to_bits() as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_goes_to_even() {
        let cases = [
            (0.5, 0),
            (1.5, 2),
            (-0.5, 0),
            (-1.5, -2),
            (2.4, 2),
            (-2.6, -3),
        ];
        for (value, expected) in cases {
            assert_eq!(nearest_integer(value), expected, "{value}");
            assert_eq!(nearest(value), expected as f32, "{value}");
        }
    }
}
