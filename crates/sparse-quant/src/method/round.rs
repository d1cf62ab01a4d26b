//! Rounding to whole numbers without a call for each: such as a processor does on many at once.

/// Added to a number and taken off again it leaves the nearest whole one, half to even.
const ONES: f32 = 1.5 * (1 << 23) as f32;

/// The nearest whole number, half to even, of one within 2²².
#[inline(always)]
pub(crate) fn nearest(value: f32) -> f32 {
    value + ONES - ONES
}

/// [`nearest`] as an integer.
#[inline(always)]
pub(crate) fn nearest_integer(value: f32) -> i32 {
    ((value + ONES).to_bits() as i32).wrapping_sub(ONES.to_bits() as i32)
}

/// The whole part of a number from 0 to 2²².
#[inline(always)]
pub(crate) fn floor_integer(value: f32) -> i32 {
    nearest_integer(value).wrapping_sub(i32::from(nearest(value) > value))
}

/// The nearest whole number, half away from zero, of one within 2²².
#[inline(always)]
pub(crate) fn nearest_away_integer(value: f32) -> i32 {
    let rest = value - nearest(value);
    let up = i32::from(rest == 0.5 && value > 0.0);
    let down = i32::from(rest == -0.5 && value < 0.0);
    nearest_integer(value).wrapping_add(up - down)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_parts_and_halves_away_from_zero_are_those_of_the_library() {
        let around = |middle: f32| [middle.next_down(), middle, middle.next_up()];
        for value in (-600..600).flat_map(|i| around(i as f32 / 4.0)) {
            assert_eq!(nearest_away_integer(value), value.round() as i32, "{value}");
            if value >= 0.0 {
                assert_eq!(floor_integer(value), value as i32, "{value}");
            }
        }
    }

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
