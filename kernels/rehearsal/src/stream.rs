//! Streams and events. A stream is a queue of which, by chance, nothing is done before somebody waits for it, or everything: what
//! relies on more than it waited for is found out. While it records, it does nothing and keeps what it is given. Knows nothing
//! about what that is.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ffi::{c_int, c_uint, c_void};

use chorus_kernels::emulated::Chance;

use crate::{CAPTURE_UNSUPPORTED, INVALID_VALUE, SUCCESS, fail};

/// Something that a stream does; more than once where it is recorded.
pub(crate) type Work = Box<dyn Fn() -> c_int>;

/// A stream. Whoever uses it from several threads takes turns, as the engine does.
pub(crate) struct Stream {
    queue: RefCell<Queue>,
    recorded: RefCell<Option<Vec<Work>>>,
    /// What has failed; from then on everything does.
    error: Cell<c_int>,
    chance: Chance,
}

#[derive(Default)]
struct Queue {
    done: usize,
    waiting: VecDeque<Item>,
}

enum Item {
    Work(Work),
    Wait(Place),
}

/// A place in the order of a stream: behind so much.
#[derive(Clone, Copy)]
struct Place {
    /// Never given back, since events may name it.
    stream: &'static Stream,
    end: usize,
}

/// An event, and where it was recorded.
#[derive(Default)]
struct Event(Cell<Option<Place>>);

impl Stream {
    /// Whether a stream, if it is one, records.
    pub(crate) fn records(stream: *const Self) -> bool {
        Self::of(stream).is_some_and(|stream| stream.recorded.borrow().is_some())
    }

    /// Queues work, or records it. The default stream does it at once.
    pub(crate) fn give(stream: *const Self, work: Work) -> c_int {
        let Some(stream) = Self::of(stream) else { return work() };
        if let Some(list) = stream.recorded.borrow_mut().as_mut() {
            list.push(work);
            return SUCCESS;
        }
        stream.queue.borrow_mut().waiting.push_back(Item::Work(work));
        stream.error.get()
    }

    /// Does everything that it was given.
    pub(crate) fn finish(stream: *const Self) -> c_int {
        Self::of(stream).map_or(SUCCESS, |stream| stream.run_to(stream.end()))
    }

    /// Does everything that it was given, or nothing, by chance.
    pub(crate) fn go_on(stream: *const Self) {
        if let Some(stream) = Self::of(stream)
            && stream.chance.happens()
        {
            // Whoever waits is told of what fails.
            stream.run_to(stream.end());
        }
    }

    /// Begins to record.
    pub(crate) fn record(stream: *const Self) -> c_int {
        let Some(stream) = Self::of(stream) else {
            return fail(CAPTURE_UNSUPPORTED, "the default stream does not record");
        };
        let before = stream.recorded.replace(Some(Vec::new()));
        if before.is_some() { CAPTURE_UNSUPPORTED } else { SUCCESS }
    }

    /// What it has recorded.
    pub(crate) fn recorded(stream: *const Self) -> Option<Vec<Work>> {
        Self::of(stream)?.recorded.take()
    }

    fn of(stream: *const Self) -> Option<&'static Self> {
        // SAFETY: null, or what `cuStreamCreate` gave, which stays.
        unsafe { stream.as_ref() }
    }

    fn end(&self) -> usize {
        let queue = self.queue.borrow();
        queue.done + queue.waiting.len()
    }

    fn run_to(&self, end: usize) -> c_int {
        loop {
            let item = {
                let mut queue = self.queue.borrow_mut();
                if queue.done >= end {
                    return self.error.get();
                }
                queue.done += 1;
                queue.waiting.pop_front()
            };
            let code = match item {
                Some(Item::Work(work)) if self.error.get() == SUCCESS => work(),
                // The other stream may be further by then.
                Some(Item::Wait(Place { stream, end })) => {
                    stream.run_to(if self.chance.happens() { stream.end() } else { end })
                }
                _ => SUCCESS,
            };
            if self.error.get() == SUCCESS {
                self.error.set(code);
            }
        }
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuStreamCreate(stream: *mut *const Stream, _: c_uint) -> c_int {
    let new = Stream {
        queue: RefCell::default(),
        recorded: RefCell::default(),
        error: Cell::new(SUCCESS),
        chance: Chance::default(),
    };
    // SAFETY: the caller's, as in CUDA.
    unsafe { stream.write(Box::into_raw(Box::new(new))) };
    SUCCESS
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamDestroy_v2(stream: *const Stream) -> c_int {
    // As in CUDA it ends when its work is done.
    Stream::finish(stream);
    SUCCESS
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamSynchronize(stream: *const Stream) -> c_int {
    if Stream::records(stream) {
        return fail(CAPTURE_UNSUPPORTED, "waited for what is recorded");
    }
    Stream::finish(stream)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuStreamWaitEvent(stream: *const Stream, event: *const c_void, _: c_uint) -> c_int {
    if Stream::records(stream) {
        return fail(CAPTURE_UNSUPPORTED, "waits for an event in what is recorded");
    }
    // SAFETY: what `cuEventCreate` gave.
    let place = unsafe { &*event.cast::<Event>() }.0.get();
    if let (Some(stream), Some(place)) = (Stream::of(stream), place) {
        stream.queue.borrow_mut().waiting.push_back(Item::Wait(place));
    }
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuStreamIsCapturing(stream: *const Stream, status: *mut c_uint) -> c_int {
    // SAFETY: the caller's, as in CUDA.
    unsafe { status.write(Stream::records(stream).into()) };
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuEventCreate(event: *mut *mut c_void, _: c_uint) -> c_int {
    // SAFETY: the caller's, as in CUDA.
    unsafe { event.write(Box::into_raw(Box::<Event>::default()).cast()) };
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuEventDestroy_v2(event: *mut c_void) -> c_int {
    // SAFETY: what `cuEventCreate` gave; who waits for it knows the place.
    drop(unsafe { Box::from_raw(event.cast::<Event>()) });
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuEventRecord(event: *mut c_void, stream: *const Stream) -> c_int {
    if Stream::records(stream) {
        return fail(CAPTURE_UNSUPPORTED, "an event in what is recorded");
    }
    let Some(of) = Stream::of(stream) else {
        return fail(INVALID_VALUE, "an event on the default stream");
    };
    // SAFETY: what `cuEventCreate` gave.
    unsafe { &*event.cast::<Event>() }.0.set(Some(Place { stream: of, end: of.end() }));
    Stream::go_on(stream);
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuEventSynchronize(event: *const c_void) -> c_int {
    // SAFETY: what `cuEventCreate` gave.
    let place = unsafe { &*event.cast::<Event>() }.0.get();
    place.map_or(SUCCESS, |Place { stream, end }| stream.run_to(end))
}
