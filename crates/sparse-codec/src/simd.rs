//! Plain loops compiled three times: for any x86-64, for AVX2 and for AVX-512.

/// What the CPU offers, as far as kernels are written for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// Nothing beyond the target's baseline.
    Plain,
    /// AVX2 and the bit instructions that every CPU with AVX2 has.
    Avx2,
    /// AVX-512 with byte permutations, compression and expansion: Ice Lake and Zen 4 on.
    Avx512,
}

/// The best level of this CPU.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn level() -> Level {
    use std::sync::atomic::{AtomicU8, Ordering};
    static KNOWN: AtomicU8 = AtomicU8::new(u8::MAX);
    match KNOWN.load(Ordering::Relaxed) {
        0 => Level::Plain,
        1 => Level::Avx2,
        2 => Level::Avx512,
        _ => {
            let level = detect();
            KNOWN.store(level as u8, Ordering::Relaxed);
            level
        }
    }
}

/// The best level of this CPU.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
pub(crate) fn level() -> Level {
    Level::Plain
}

#[cfg(target_arch = "x86_64")]
#[cold]
fn detect() -> Level {
    use std::arch::is_x86_feature_detected as has;
    if !(has!("avx2") && has!("bmi1") && has!("bmi2") && has!("lzcnt") && has!("popcnt")) {
        return Level::Plain;
    }
    let wide = has!("avx512f") && has!("avx512bw") && has!("avx512vl") && has!("avx512dq");
    if wide && has!("avx512vbmi") && has!("avx512vbmi2") {
        Level::Avx512
    } else {
        Level::Avx2
    }
}

/// Whether the CPU has AVX2 and the bit instructions that every CPU with AVX2 has.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn has_avx2() -> bool {
    level() >= Level::Avx2
}

/// Has the first-level cache fetch `count` values from `start` on, which need not exist.
#[inline(always)]
#[cfg_attr(not(target_arch = "x86_64"), allow(unused_variables))]
pub(crate) fn prefetch<T>(start: *const T, count: usize) {
    #[cfg(target_arch = "x86_64")]
    for line in (0..size_of::<T>() * count).step_by(64) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: every x86-64 CPU has SSE, and a prefetch may be of any address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(start.wrapping_byte_add(line).cast::<i8>()) };
    }
}

/// Words of 16 bits with the bits below a set sign turned over: floats have their order there, and
/// turned again are what they were.
///
/// # Safety
/// The CPU must have what [`Level::Avx512`] stands for.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(crate) unsafe fn turned_avx512(
    words: std::arch::x86_64::__m512i,
) -> std::arch::x86_64::__m512i {
    use std::arch::x86_64::{_mm512_set1_epi16, _mm512_srai_epi16, _mm512_ternarylogic_epi64};
    let signs = _mm512_srai_epi16::<15>(words);
    // words ^ (signs & 0x7fff)
    _mm512_ternarylogic_epi64::<0x78>(words, signs, _mm512_set1_epi16(0x7fff))
}

/// The steps from words of 16 bits to others, as `Word::steps_to` has them.
///
/// # Safety
/// The CPU must have what [`Level::Avx512`] stands for.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(crate) unsafe fn steps_avx512(
    base: std::arch::x86_64::__m512i,
    fine: std::arch::x86_64::__m512i,
    shift: u32,
) -> std::arch::x86_64::__m512i {
    use std::arch::x86_64::{
        _mm_cvtsi32_si128, _mm512_sll_epi16, _mm512_sra_epi16, _mm512_sub_epi16,
    };
    // SAFETY: the caller vouches for the CPU.
    let (base, fine) = unsafe { (turned_avx512(base), turned_avx512(fine)) };
    if shift == 0 {
        return _mm512_sub_epi16(fine, base);
    }
    let shift = _mm_cvtsi32_si128(shift as i32);
    let steps = _mm512_sub_epi16(_mm512_sra_epi16(fine, shift), _mm512_sra_epi16(base, shift));
    _mm512_sra_epi16(_mm512_sll_epi16(steps, shift), shift)
}

/// The words of 16 bits so many steps away, as `Word::stepped` has them; `SHIFTED` says whether any
/// low bits are left out.
///
/// # Safety
/// The CPU must have what [`Level::Avx512`] stands for.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(crate) unsafe fn stepped_avx512<const SHIFTED: bool>(
    base: std::arch::x86_64::__m512i,
    steps: std::arch::x86_64::__m512i,
    shift: u32,
) -> std::arch::x86_64::__m512i {
    use std::arch::x86_64::{
        _mm_cvtsi32_si128, _mm512_add_epi16, _mm512_sll_epi16, _mm512_sra_epi16,
    };
    // SAFETY: the caller vouches for the CPU.
    let turned = |words| unsafe { turned_avx512(words) };
    if !SHIFTED {
        return turned(_mm512_add_epi16(turned(base), steps));
    }
    let shift = _mm_cvtsi32_si128(shift as i32);
    let ordinal = _mm512_sra_epi16(turned(base), shift);
    let moved = turned(_mm512_sll_epi16(_mm512_add_epi16(ordinal, steps), shift));
    _mm512_sll_epi16(_mm512_sra_epi16(moved, shift), shift)
}

/// Declares a function whose body the compiler may vectorise for AVX2 and AVX-512; the choice is
/// made at run time. The body is the same safe code, so all copies compute the same.
macro_rules! vectorised {
    ($(#[$meta:meta])* $vis:vis fn $name:ident $(<$t:ident: $bound:path>)? ($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        $vis fn $name $(<$t: $bound>)? ($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn plain $(<$t: $bound>)? ($($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
                fn wide $(<$t: $bound>)? ($($arg: $ty),*) $(-> $ret)? {
                    plain($($arg),*)
                }
                #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt,avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2")]
                fn widest $(<$t: $bound>)? ($($arg: $ty),*) $(-> $ret)? {
                    plain($($arg),*)
                }
                match $crate::simd::level() {
                    // SAFETY: the features were just detected.
                    $crate::simd::Level::Avx512 => return unsafe { widest($($arg),*) },
                    // SAFETY: the features were just detected.
                    $crate::simd::Level::Avx2 => return unsafe { wide($($arg),*) },
                    $crate::simd::Level::Plain => {}
                }
            }
            plain($($arg),*)
        }
    };
}
pub(crate) use vectorised;
