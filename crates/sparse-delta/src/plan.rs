//! What to do with each tensor, decided before any chunk is coded.

mod lowrank;

use std::collections::{BTreeMap, HashMap};

use sparse_checkpoint::{Checkpoint, TensorRef};
use sparse_codec::{Fit, Fitter, Layout, Sampling, Scales};

use crate::Error;
use crate::index::{common_weights, width};
use crate::matching::match_tensors;
use crate::progress::{Progress, step};
use crate::source::{read_cast, read_words, zero_bits};
use crate::words::{Words, layout};

use lowrank::Budget;
pub(crate) use lowrank::Prediction;

/// Bytes that low-rank searches hold at a time.
const SEARCH_BYTES: u64 = 512 << 20;

/// How hard to look for what makes a delta smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Effort {
    /// As [`Effort::Fast`], in codes in which no weight waits for the one before: 4 % larger, rebuilt
    /// 1.4 to 1.6 times as fast with AVX-512, half as fast with AVX2 alone.
    Fastest,
    /// No low-rank predictions, no scales of columns, and the rest from a small sample.
    Fast,
    /// Low-rank predictions, found by a search that takes several times as long as the rest:
    /// merged LoRAs become ten times smaller, ordinary fine-tunes a fifth where training was
    /// short.
    #[default]
    High,
}

/// The plan for a whole checkpoint.
pub(crate) struct Plan<'a> {
    pub(crate) tensors: Vec<TensorPlan<'a>>,
    pub(crate) fits: Vec<Fit>,
}

/// The plan for one tensor of the fine-tune.
pub(crate) struct TensorPlan<'a> {
    pub(crate) fine: TensorRef<'a>,
    pub(crate) kind: Kind<'a>,
}

pub(crate) enum Kind<'a> {
    /// Equal to the tensor with this number, counted as [`Checkpoint::tensors`] does.
    Alias(usize),
    /// Chunks of bytes.
    Raw(Option<TensorRef<'a>>),
    /// Chunks of modelled weights without a base.
    Full,
    /// Chunks of modelled weights against a base.
    Delta(Box<DeltaPlan<'a>>),
}

pub(crate) struct DeltaPlan<'a> {
    pub(crate) base: TensorRef<'a>,
    /// Weights at the start of the tensor that have a counterpart in the base.
    pub(crate) common: u64,
    pub(crate) layout: Layout,
    pub(crate) low_rank: Option<Prediction>,
    /// Which of [`Plan::fits`].
    pub(crate) fit: usize,
    pub(crate) scales: Scales,
    /// Where only some of many tensors of one kind are searched for predictions.
    pub(crate) kin: Option<Kin>,
}

/// Which tensors are searched for low-rank predictions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Search {
    /// Each.
    All,
    /// Some of those of one kind, where there are many.
    Some,
}

/// Tensors of one shape whose names differ in numbers only: the same part of each layer.
#[derive(Debug, Clone)]
pub(crate) struct Kin {
    pub(crate) number: usize,
    /// Whether this one is searched and stands for others.
    pub(crate) searched: bool,
    /// The fit and scales without a prediction, of one that is searched and has one.
    pub(crate) plain: Option<(usize, Scales)>,
}

/// Tensors searched of each kind that has twice as many.
const SEARCHED: usize = 8;

impl DeltaPlan<'_> {
    /// What is predicted for weights `start..` from the base's words.
    pub(crate) fn predict(&self, start: u64, base: Words) -> Words {
        match &self.low_rank {
            Some(low_rank) => low_rank.predict(self.layout, start, base),
            None => base,
        }
    }
}

/// Decides, with samples of every tensor and low-rank searches of matrices.
pub(crate) fn plan<'a>(
    base: &'a Checkpoint,
    fine: &'a Checkpoint,
    effort: Effort,
    search: Search,
    threads: usize,
    progress: &dyn Progress,
) -> Result<Plan<'a>, Error> {
    progress.start("plan", fine.tensors().map(|t| t.byte_len()).sum());
    let matches = match_tensors(base, fine, progress)?;
    let aliases = find_aliases(fine, progress)?;
    let kins = match (search, effort) {
        (Search::Some, Effort::High) => kins(fine, &matches)?,
        _ => vec![None; aliases.len()],
    };
    let budget = Budget::new(SEARCH_BYTES);
    let mut tensors = Vec::new();
    crate::pipeline::ordered(
        threads,
        fine.tensors()
            .zip(matches)
            .zip(aliases.into_iter().zip(kins))
            .map(Ok),
        || (),
        |(), ((fine, base), (alias, kin))| {
            step(progress, fine.byte_len())?;
            let kind = match (alias, layout(fine.dtype()), base) {
                (Some(alias), _, _) => Kind::Alias(alias),
                (None, None, base) => Kind::Raw(base),
                (None, Some(_), None) => Kind::Full,
                (None, Some(layout), Some(base)) => Kind::Delta(Box::new(plan_delta(
                    fine, base, layout, effort, kin, &budget, progress,
                )?)),
            };
            Ok(TensorPlan { fine, kind })
        },
        |tensor| {
            tensors.push(tensor);
            Ok::<_, Error>(())
        },
    )?;
    let total = tensors.iter().map(|t| t.fine.elements()).sum();
    let sampling = match effort {
        Effort::Fastest | Effort::Fast => Sampling::quick(total),
        Effort::High => Sampling::thorough(total),
    };
    let mut fitters = Fitters::new(effort);
    for tensor in &mut tensors {
        if let Kind::Delta(delta) = &mut tensor.kind {
            sample(tensor.fine, delta, sampling, &mut fitters)?;
        }
    }
    let (fits, mut scales) = fitters.fit();
    for tensor in &mut tensors {
        if let Kind::Delta(delta) = &mut tensor.kind
            && let Some(next) = scales[delta.fit].next()
        {
            delta.scales = next;
            if let Some((fit, plain)) = delta.kin.as_mut().and_then(|kin| kin.plain.as_mut())
                && let Some(next) = scales[*fit].next()
            {
                *plain = next;
            }
        }
    }
    Ok(Plan { tensors, fits })
}

/// One fitter for each layout, predicted tensors apart from the others.
struct Fitters {
    effort: Effort,
    numbers: HashMap<(Layout, bool), usize>,
    fitters: Vec<Fitter>,
}

impl Fitters {
    fn new(effort: Effort) -> Self {
        Self {
            effort,
            numbers: HashMap::new(),
            fitters: Vec::new(),
        }
    }

    fn get(&mut self, layout: Layout, low_rank: bool) -> (usize, &mut Fitter) {
        let next = self.fitters.len();
        let number = *self.numbers.entry((layout, low_rank)).or_insert(next);
        if number == next {
            let fitter = Fitter::new(layout);
            self.fitters.push(match self.effort {
                Effort::Fastest => fitter.without_columns().ranked(),
                Effort::Fast => fitter.without_columns(),
                Effort::High => fitter,
            });
        }
        (number, &mut self.fitters[number])
    }

    /// The fits, and for each the scales of its tensors in the order they were added.
    fn fit(self) -> (Vec<Fit>, Vec<std::vec::IntoIter<Scales>>) {
        self.fitters
            .into_iter()
            .map(|fitter| {
                let mut fit = fitter.fit();
                let scales = std::mem::take(&mut fit.scales).into_iter();
                (fit, scales)
            })
            .unzip()
    }
}

fn plan_delta<'a>(
    fine: TensorRef<'a>,
    base: TensorRef<'a>,
    layout: Layout,
    effort: Effort,
    kin: Option<Kin>,
    budget: &Budget,
    progress: &dyn Progress,
) -> Result<DeltaPlan<'a>, Error> {
    let common = common_weights(base.shape(), fine.shape()).unwrap_or(0);
    let layout = shared_zero_bits(layout, &base, &fine, common)?;
    let whole = common == fine.elements() && common == base.elements();
    let searched = kin.as_ref().is_none_or(|kin| kin.searched);
    let low_rank = if whole && searched && effort == Effort::High {
        Prediction::find(layout, &base, &fine, budget, progress)?
    } else {
        None
    };
    Ok(DeltaPlan {
        base,
        common,
        layout,
        low_rank,
        fit: 0,
        scales: Scales::flat(width(fine.shape())),
        kin,
    })
}

/// Samples a tensor for the fitter of its kind.
fn sample(
    fine: TensorRef<'_>,
    delta: &mut DeltaPlan<'_>,
    sampling: Sampling,
    fitters: &mut Fitters,
) -> Result<(), Error> {
    let width = width(fine.shape());
    let segment = Scales::segment_for(width) as u64;
    let mut runs = Vec::new();
    for start in sampling.starts(delta.common, width) {
        let len = segment.min(delta.common - start);
        let fine_words = read_words(&fine, start, len)?;
        let base_words = read_cast(&delta.base, start, len, fine.dtype())?;
        runs.push((start as usize, base_words, fine_words));
    }
    let predicted = delta.low_rank.is_some();
    if let Some(kin) = delta.kin.as_mut().filter(|_| predicted) {
        let (number, fitter) = fitters.get(delta.layout, false);
        add_runs(fitter, width, delta.common, &runs);
        kin.plain = Some((number, delta.scales.clone()));
    }
    let predict = |(start, base, fine)| (start, delta.predict(start as u64, base), fine);
    let runs: Vec<_> = runs.into_iter().map(predict).collect();
    let (number, fitter) = fitters.get(delta.layout, predicted);
    delta.fit = number;
    add_runs(fitter, width, delta.common, &runs);
    Ok(())
}

fn add_runs(fitter: &mut Fitter, width: usize, total: u64, runs: &[(usize, Words, Words)]) {
    macro_rules! add {
        ($variant:path) => {
            fitter.add(
                width,
                total,
                runs.iter()
                    .filter_map(|(start, base, fine)| match (base, fine) {
                        ($variant(base), $variant(fine)) => {
                            Some((*start, base.as_slice(), fine.as_slice()))
                        }
                        _ => None,
                    }),
            )
        };
    }
    match runs.first() {
        Some((_, Words::W8(_), _)) => add!(Words::W8),
        Some((_, Words::W32(_), _)) => add!(Words::W32),
        _ => add!(Words::W16),
    }
}

/// The layout without the low bits that are zero throughout both tensors.
fn shared_zero_bits(
    layout: Layout,
    base: &TensorRef<'_>,
    fine: &TensorRef<'_>,
    common: u64,
) -> Result<Layout, Error> {
    let piece = 1u64 << 18;
    let mut zeros = layout.mantissa();
    for start in (0..common).step_by(piece as usize) {
        let len = piece.min(common - start);
        zeros = zeros.min(zero_bits(layout, &read_words(fine, start, len)?));
        if zeros == 0 {
            break;
        }
        let base = read_cast(base, start, len, fine.info().dtype())?;
        zeros = zeros.min(zero_bits(layout, &base));
    }
    Ok(layout.with_shift(zeros).unwrap_or(layout))
}

/// So many of the numbers below `total`, evenly spaced.
pub(crate) fn evenly(wanted: usize, total: usize) -> impl Iterator<Item = usize> {
    let wanted = wanted.min(total);
    (0..wanted).map(move |i| (2 * i + 1) * total / (2 * wanted))
}

/// For each tensor its kin, where those of them that changed are so many that some can stand for
/// the others.
fn kins(fine: &Checkpoint, matches: &[Option<TensorRef<'_>>]) -> Result<Vec<Option<Kin>>, Error> {
    let mut groups: BTreeMap<(String, &[u64], &str), Vec<usize>> = BTreeMap::new();
    for (number, (tensor, base)) in fine.tensors().zip(matches).enumerate() {
        if let Some(base) = base
            && seem_changed(&tensor, base)?
        {
            let name = tensor.name().replace(|c: char| c.is_ascii_digit(), "");
            let key = (name, tensor.shape(), tensor.dtype().name());
            groups.entry(key).or_default().push(number);
        }
    }
    let mut kins = vec![None; matches.len()];
    let many = groups.values().filter(|group| group.len() >= 2 * SEARCHED);
    for (number, group) in many.enumerate() {
        let searched: Vec<usize> = evenly(SEARCHED, group.len()).collect();
        for (i, &member) in group.iter().enumerate() {
            kins[member] = Some(Kin {
                number,
                searched: searched.contains(&i),
                plain: None,
            });
        }
    }
    Ok(kins)
}

/// Whether some of a tensor's bytes differ from its base's.
fn seem_changed(fine: &TensorRef<'_>, base: &TensorRef<'_>) -> Result<bool, Error> {
    const LOOK: u64 = 1 << 12;
    let bytes = fine.byte_len();
    if bytes != base.byte_len() {
        return Ok(true);
    }
    let len = LOOK.min(bytes);
    let (mut own, mut other) = (vec![0; len as usize], vec![0; len as usize]);
    for part in 0..4 {
        let start = (bytes - len) / 3 * part;
        fine.read_range(start..start + len, &mut own)?;
        base.read_range(start..start + len, &mut other)?;
        if own != other {
            return Ok(true);
        }
    }
    Ok(false)
}

/// For each tensor, an earlier one with the same bytes.
fn find_aliases(fine: &Checkpoint, progress: &dyn Progress) -> Result<Vec<Option<usize>>, Error> {
    // By length and a few bytes.
    type Alike<'a> = Vec<(usize, TensorRef<'a>)>;
    let mut seen: HashMap<(u64, Vec<u8>), Alike<'_>> = HashMap::new();
    let mut aliases = Vec::new();
    for (number, tensor) in fine.tensors().enumerate() {
        step(progress, 0)?;
        let bytes = tensor.info().bytes();
        // Small tensors (norms set to one, say) cost less than the look.
        if bytes < 1024 {
            aliases.push(None);
            continue;
        }
        let mut start = vec![0; 256];
        tensor.read_range(bytes / 2..bytes / 2 + 256, &mut start)?;
        let group = seen.entry((bytes, start)).or_default();
        let mut alias = None;
        for (other, earlier) in group.iter() {
            if earlier.same_bytes(&tensor)? {
                alias = Some(*other);
                break;
            }
        }
        if alias.is_none() {
            group.push((number, tensor));
        }
        aliases.push(alias);
    }
    Ok(aliases)
}
