//! A PyTorch checkpoint (`torch.save`, a zip archive with a pickle in it), read with candle's pickle machine and
//! without trusting it: the machine panics on some operands and copies what it memorises, so operands are checked
//! before and sizes after every instruction. Nothing in a pickle is ever executed.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};

use candle_core::pickle::{Object, Stack};
use zip::ZipArchive;

use super::element::Element;

/// Deeper objects than any state_dict's would overflow the call stack when they are dropped.
const DEEPEST: usize = 48;
/// How many objects may be looked at in total; a checkpoint with an optimizer has some ten thousand.
const MOST_OBJECTS: usize = 20_000_000;
/// The pickle of a checkpoint holds names and shapes, not weights.
const LARGEST_PICKLE: u64 = 16 << 20;
/// PyTorch stores its numbers without compression, so what grows beyond so many times the archive's size is no
/// weights: views that show a storage's numbers again and again, or, should zip ever unpack here, a bomb.
const LARGEST_GROWTH: usize = 16;
/// Where checkpoints keep the state_dict beside other things, in the order of preference.
const NESTED_UNDER: [&str; 6] = ["state_dict", "model_state_dict", "model", "net", "network", "weights"];

/// A tensor as the pickle describes it: a strided view into one of the archive's storages.
#[derive(Debug, Clone)]
pub(super) struct View {
    pub(super) element: Element,
    pub(super) shape: Vec<usize>,
    strides: Vec<usize>,
    /// The first element's index in the storage.
    offset: usize,
    /// The storage's name in the archive.
    storage: String,
}

/// What is wrong with an archive.
#[derive(Debug, thiserror::Error)]
pub(super) enum PickleError {
    #[error("the zip archive is broken")]
    Zip(#[from] zip::result::ZipError),
    #[error("the zip archive can't be read")]
    Io(#[from] std::io::Error),
    #[error("the pickle is broken: {0}")]
    Machine(String),
    #[error("it was pickled with protocol {0}; save it with PyTorch's default, protocol 2")]
    Protocol(u8),
    #[error("the pickle has an instruction with an impossible operand")]
    Operand,
    #[error("the pickle is nested or repeated beyond what any checkpoint needs")]
    TooComplex,
    #[error("the archive has no data.pkl")]
    NoPickle,
    #[error("the tensors are stored big-endian")]
    BigEndian,
    #[error("it holds a whole pickled module; save module.state_dict() instead")]
    WholeModule,
    #[error("it holds no state_dict: no tensors at its top or under {}", NESTED_UNDER.join(", "))]
    NoStateDict,
}

/// An opened archive: its tensors by key.
pub(super) struct Archive {
    file: Vec<u8>,
    pub(super) tensors: BTreeMap<String, Result<View, String>>,
}

/// Of what candle says, in characters: some of it is a whole pickle.
const LONGEST_REASON: usize = 300;

/// The beginning of the first line of what candle says; a backtrace may follow it.
impl From<candle_core::Error> for PickleError {
    fn from(error: candle_core::Error) -> Self {
        let text = error.to_string();
        let line = text.lines().next().unwrap_or_default();
        let mut reason: String = line.chars().take(LONGEST_REASON).collect();
        if reason.len() < line.len() {
            reason.push_str(" [...]");
        }
        Self::Machine(reason)
    }
}

impl Archive {
    /// Opens the bytes of a `.pt` file. The numbers stay where they are until [`Archive::values`].
    pub(super) fn open(file: Vec<u8>) -> Result<Self, PickleError> {
        let mut zip = ZipArchive::new(Cursor::new(file.as_slice()))?;
        let names: Vec<String> =
            zip.file_names().map(|name| name.map(std::borrow::Cow::into_owned)).collect::<Result<_, _>>()?;
        let root =
            names.iter().find_map(|name| name.strip_suffix("data.pkl")).ok_or(PickleError::NoPickle)?;
        if names.contains(&format!("{root}byteorder"))
            && read_entry(&mut zip, &format!("{root}byteorder"))? == b"big"
        {
            return Err(PickleError::BigEndian);
        }
        let object = unpickle(&read_entry(&mut zip, &format!("{root}data.pkl"))?)?;
        let state = state_dict(object, 0)?;
        let mut left = file.len().saturating_mul(LARGEST_GROWTH);
        let tensors = state.into_iter().filter_map(|(key, value)| {
            let view = tensor(&value, root)?.and_then(|view| view.within(&mut left));
            Some((key.unicode().ok()?, view))
        });
        let tensors = tensors.collect();
        Ok(Self { file, tensors })
    }

    /// A tensor's numbers, row by row. Of its storage no more is unpacked than it reaches.
    pub(super) fn values(&self, view: &View) -> Result<Vec<f32>, String> {
        let size = view.element.size().ok_or("its type is not read here")?;
        let needed = view.reach().and_then(|reach| reach.checked_mul(size));
        let largest = self.file.len().saturating_mul(LARGEST_GROWTH);
        let needed = needed.filter(|needed| *needed <= largest).ok_or_else(|| {
            format!("its strides reach beyond {LARGEST_GROWTH} times the archive's {} bytes", self.file.len())
        })?;
        let mut zip =
            ZipArchive::new(Cursor::new(self.file.as_slice())).map_err(|error| error.to_string())?;
        let entry = zip.by_name(&view.storage).map_err(|error| format!("{}: {error}", view.storage))?;
        let mut bytes = Vec::new();
        entry
            .take(needed as u64)
            .read_to_end(&mut bytes)
            .map_err(|error| format!("{}: {error}", view.storage))?;
        let storage = bytes.len() / size;
        let numbers = view.element.to_f32(&bytes).ok_or("its type is not read here")?;
        let indices = view.indices().ok_or("its strides reach beyond any storage")?;
        let gathered: Option<Vec<f32>> =
            indices.into_iter().map(|index| numbers.get(index).copied()).collect();
        gathered.ok_or_else(|| format!("it reaches beyond the {storage} numbers of its storage"))
    }
}

impl View {
    /// The view itself, if what it holds is no more than what is `left`, which becomes less by it.
    fn within(self, left: &mut usize) -> Result<Self, String> {
        let count = self.shape.iter().try_fold(1_usize, |count, size| count.checked_mul(*size));
        let bytes = count.and_then(|count| count.checked_mul(self.element.size().unwrap_or(1)));
        *left = bytes.and_then(|bytes| left.checked_sub(bytes)).ok_or_else(|| {
            let shape = &self.shape;
            format!("with its shape {shape:?} the tensors are more than {LARGEST_GROWTH} times the archive")
        })?;
        Ok(self)
    }

    /// How many of the storage's numbers there must be: up to the last one that the view shows.
    fn reach(&self) -> Option<usize> {
        let steps = self.shape.iter().zip(&self.strides);
        let last = steps.map(|(size, stride)| size.saturating_sub(1).checked_mul(*stride));
        last.chain([Some(1)]).try_fold(self.offset, |sum, part| sum.checked_add(part?))
    }

    /// The elements' indices in the storage, row by row.
    fn indices(&self) -> Option<Vec<usize>> {
        if self.shape.contains(&0) {
            return Some(Vec::new());
        }
        let mut indices = vec![self.offset];
        for (size, stride) in self.shape.iter().zip(&self.strides) {
            let mut next = Vec::with_capacity(indices.len() * size);
            for base in indices {
                for step in 0..*size {
                    next.push(step.checked_mul(*stride)?.checked_add(base)?);
                }
            }
            indices = next;
        }
        Some(indices)
    }
}

fn read_entry(zip: &mut ZipArchive<Cursor<&[u8]>>, name: &str) -> Result<Vec<u8>, PickleError> {
    let entry = zip.by_name(name)?;
    if entry.size() > LARGEST_PICKLE {
        return Err(PickleError::TooComplex);
    }
    let mut bytes = Vec::new();
    entry.take(LARGEST_PICKLE).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Runs the machine to its end, one checked instruction at a time.
fn unpickle(pickle: &[u8]) -> Result<Object, PickleError> {
    let mut rest = pickle;
    let mut stack = Stack::empty();
    let mut budget = MOST_OBJECTS;
    if let [0x80, protocol @ 4..=u8::MAX, ..] = pickle {
        return Err(PickleError::Protocol(*protocol));
    }
    loop {
        check_operands(rest)?;
        let finished = match huge_number(rest) {
            Some(after) => {
                rest = after;
                stack.read(&mut &[0x8a, 1, 0][..])?
            }
            None => stack.read(&mut rest)?,
        };
        if let Some(top) = stack.stack().last() {
            measure(top, DEEPEST, &mut budget)?;
        }
        if finished {
            return Ok(stack.finalize()?);
        }
    }
}

/// Catches the operands that candle allocates or shifts by without a look: a text's length and a number's.
fn check_operands(rest: &[u8]) -> Result<(), PickleError> {
    let possible = match rest {
        [b'X', a, b, c, d, text @ ..] => u32::from_le_bytes([*a, *b, *c, *d]) as usize <= text.len(),
        [0x8a, length, bytes @ ..] => usize::from(*length) <= bytes.len(),
        _ => true,
    };
    if possible { Ok(()) } else { Err(PickleError::Operand) }
}

/// What follows a number of more than eight bytes, which candle would shift by too much. It is a seed or a state of some
/// random generator, and no part of a tensor: zero stands in its place.
fn huge_number(rest: &[u8]) -> Option<&[u8]> {
    match rest {
        [0x8a, length @ 9..=u8::MAX, bytes @ ..] => bytes.get(usize::from(*length)..),
        _ => None,
    }
}

/// Counts an object and what is in it against the budget, and refuses deep nesting.
fn measure(object: &Object, depth: usize, budget: &mut usize) -> Result<(), PickleError> {
    let depth = depth.checked_sub(1).ok_or(PickleError::TooComplex)?;
    *budget = budget.checked_sub(1).ok_or(PickleError::TooComplex)?;
    match object {
        Object::Tuple(items) | Object::List(items) => {
            items.iter().try_for_each(|item| measure(item, depth, budget))
        }
        Object::Dict(entries) => entries.iter().try_for_each(|(key, value)| {
            measure(key, depth, budget)?;
            measure(value, depth, budget)
        }),
        Object::Reduce { callable, args } | Object::Build { callable, args } => {
            measure(callable, depth, budget)?;
            measure(args, depth, budget)
        }
        Object::PersistentLoad(inner) => measure(inner, depth, budget),
        _ => Ok(()),
    }
}

/// The dictionary with the tensors: what the object holds under a usual key, or the object itself. A checkpoint may have
/// single tensors, as losses and states of random generators, beside the dictionary.
fn state_dict(object: Object, depth: usize) -> Result<Vec<(Object, Object)>, PickleError> {
    let entries = match object {
        Object::Dict(entries) => entries,
        Object::Build { .. } | Object::Reduce { .. } => return Err(PickleError::WholeModule),
        _ => return Err(PickleError::NoStateDict),
    };
    let place = |(key, _): &(Object, Object)| match key {
        Object::Unicode(key) => NESTED_UNDER.iter().position(|name| name == key),
        _ => None,
    };
    let has_tensors = |(_, value): &(Object, Object)| holds_tensors(value, depth);
    let nested = entries.iter().any(|entry| place(entry).is_some() && has_tensors(entry));
    if !nested && entries.iter().any(|(_, value)| is_tensor(value)) {
        return Ok(entries);
    }
    let candidates = entries.into_iter().filter(|entry| place(entry).is_some());
    let best = candidates.filter(|entry| !nested || has_tensors(entry)).min_by_key(place);
    match best {
        Some((_, value)) if depth < NESTED_UNDER.len() => state_dict(value, depth + 1),
        _ => Err(PickleError::NoStateDict),
    }
}

/// Whether a dictionary has tensors in it, or in a dictionary in it.
fn holds_tensors(value: &Object, depth: usize) -> bool {
    let Object::Dict(entries) = value else { return false };
    let deeper = |value| depth < NESTED_UNDER.len() && holds_tensors(value, depth + 1);
    entries.iter().any(|(_, value)| is_tensor(value) || deeper(value))
}

fn is_tensor(value: &Object) -> bool {
    matches!(value, Object::Reduce { callable, .. } if matches!(&**callable,
        Object::Class { module_name, .. } if module_name == "torch._utils" || module_name == "torch._tensor"))
}

/// The view that a value describes, the reason why it is not understood, or none if it is no tensor at all.
fn tensor(value: &Object, root: &str) -> Option<Result<View, String>> {
    is_tensor(value).then(|| {
        view(value, root)
            .ok_or_else(|| "it is no plain dense tensor (torch._utils._rebuild_tensor_v2)".to_owned())
    })
}

/// `_rebuild_tensor_v2(storage, offset, size, stride, ...)`, perhaps inside `_rebuild_parameter(tensor, ...)`.
/// Source: pytorch, torch/_utils.py.
fn view(value: &Object, root: &str) -> Option<View> {
    let Object::Reduce { callable, args } = value else {
        return None;
    };
    let (Object::Class { class_name, .. }, Object::Tuple(args)) = (&**callable, &**args) else {
        return None;
    };
    match (class_name.as_str(), args.as_slice()) {
        ("_rebuild_parameter", [tensor, ..]) => view(tensor, root),
        ("_rebuild_tensor_v2", [Object::PersistentLoad(storage), offset, size, stride, ..]) => {
            let Object::Tuple(storage) = &**storage else {
                return None;
            };
            let [_, Object::Class { class_name, .. }, Object::Unicode(name), ..] = storage.as_slice() else {
                return None;
            };
            let (shape, strides) = (sizes(size)?, sizes(stride)?);
            let storage = format!("{root}data/{name}");
            (shape.len() == strides.len()).then_some(View {
                element: element(class_name),
                shape,
                strides,
                offset: whole(offset)?,
                storage,
            })
        }
        _ => None,
    }
}

fn element(storage_class: &str) -> Element {
    match storage_class {
        "DoubleStorage" => Element::F64,
        "FloatStorage" => Element::F32,
        "HalfStorage" => Element::F16,
        "BFloat16Storage" => Element::BF16,
        other => Element::Other(other.strip_suffix("Storage").unwrap_or(other).to_lowercase()),
    }
}

fn sizes(object: &Object) -> Option<Vec<usize>> {
    let Object::Tuple(sizes) = object else { return None };
    sizes.iter().map(whole).collect()
}

fn whole(object: &Object) -> Option<usize> {
    match object {
        Object::Int(number) => usize::try_from(*number).ok(),
        Object::Long(number) => usize::try_from(*number).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use zip::write::SimpleFileOptions;
    use zip::{CompressionMethod, ZipWriter};

    use super::*;

    /// A fuzzer found one of 4,000 characters.
    #[test]
    fn a_reason_that_quotes_the_whole_pickle_is_cut() {
        let error = |text: &str| PickleError::from(candle_core::Error::Msg(text.to_owned())).to_string();
        assert_eq!(error("expected a dict\nat line 7"), "the pickle is broken: expected a dict");
        let long = error(&"é".repeat(5000));
        assert!(long.chars().count() < 350 && long.ends_with("é [...]"), "{long}");
    }

    fn view(shape: &[usize], strides: &[usize]) -> View {
        let (shape, strides) = (shape.to_vec(), strides.to_vec());
        View { element: Element::F32, shape, strides, offset: 1, storage: "a/data/0".to_owned() }
    }

    /// An archive of one storage, the numbers from 0 to 7.
    fn archive() -> Archive {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        zip.start_file("a/data/0", stored).unwrap();
        let numbers = (0..8_u8).flat_map(|number| f32::from(number).to_le_bytes());
        zip.write_all(&numbers.collect::<Vec<u8>>()).unwrap();
        Archive { file: zip.finish().unwrap().into_inner(), tensors: BTreeMap::new() }
    }

    #[test]
    fn a_storage_is_unpacked_only_as_far_as_the_tensor_reaches() {
        let mut archive = archive();
        // The checksum of the whole storage is wrong, which only who reads to its end finds out.
        let entry = archive.file.windows(4).position(|bytes| bytes == b"PK\x01\x02").unwrap();
        archive.file[entry + 16] ^= 1;
        assert_eq!(archive.values(&view(&[2, 2], &[1, 2])).unwrap(), [1.0, 3.0, 2.0, 4.0]);
        assert_eq!(archive.values(&view(&[1 << 60, 0], &[0, 1])).unwrap(), [0.0_f32; 0]);
    }

    #[test]
    fn strides_beyond_the_storage_or_any_sensible_size_are_refused() {
        let archive = archive();
        let refusal = |shape: &[usize], strides: &[usize]| archive.values(&view(shape, strides)).unwrap_err();
        assert!(refusal(&[2], &[1 << 18]).contains("beyond 16 times the archive's"));
        assert!(refusal(&[2], &[usize::MAX]).contains("beyond 16 times the archive's"));
        assert!(refusal(&[8], &[1]).contains("beyond the 8 numbers of its storage"));
    }

    #[test]
    fn tensors_that_are_larger_than_their_archive_together_are_refused() {
        let mut left = 100;
        assert!(view(&[4, 4], &[4, 1]).within(&mut left).is_ok());
        assert!(view(&[9], &[1]).within(&mut left).is_ok());
        assert!(view(&[1], &[1]).within(&mut left).unwrap_err().contains("with its shape [1]"));
        assert!(view(&[1 << 40, 1 << 40], &[1, 1]).within(&mut 100).is_err());
    }
}
