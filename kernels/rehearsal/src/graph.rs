//! Streams, which do at once what they are given or record it, and graphs, which do what was recorded. Knows nothing about
//! what that is.

use std::cell::RefCell;
use std::ffi::{c_int, c_uint, c_void};

use crate::{CAPTURE_UNSUPPORTED, INVALID_VALUE, SUCCESS, fail};

/// Something that a stream does.
pub(crate) type Work = Box<dyn Fn() -> c_int>;

/// A stream. Whoever uses it from several threads takes turns, as the engine does.
#[derive(Default)]
pub(crate) struct Stream {
    recorded: RefCell<Option<Vec<Work>>>,
}

/// A graph, before and after it was made ready: the same here.
struct Graph(Vec<Work>);

impl Stream {
    /// Whether a stream, if it is one, records.
    pub(crate) fn records(stream: *const Self) -> bool {
        // SAFETY: null, or what `cuStreamCreate` gave.
        unsafe { stream.as_ref() }.is_some_and(|stream| stream.recorded.borrow().is_some())
    }

    /// Does work, or records it.
    pub(crate) fn give(stream: *const Self, work: Work) -> c_int {
        // SAFETY: as above.
        if let Some(stream) = unsafe { stream.as_ref() }
            && let Some(list) = stream.recorded.borrow_mut().as_mut()
        {
            list.push(work);
            return SUCCESS;
        }
        work()
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuStreamCreate(stream: *mut *const Stream, _: c_uint) -> c_int {
    // SAFETY: the caller's, as in CUDA.
    unsafe { stream.write(Box::into_raw(Box::<Stream>::default())) };
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuStreamDestroy_v2(stream: *mut Stream) -> c_int {
    // SAFETY: what `cuStreamCreate` gave.
    drop(unsafe { Box::from_raw(stream) });
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuStreamSynchronize(stream: *const Stream) -> c_int {
    if Stream::records(stream) { fail(CAPTURE_UNSUPPORTED, "waited for what is recorded") } else { SUCCESS }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuStreamWaitEvent(_: *const Stream, _: *const c_void, _: c_uint) -> c_int {
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuStreamIsCapturing(stream: *const Stream, status: *mut c_uint) -> c_int {
    // SAFETY: the caller's, as in CUDA.
    unsafe { status.write(Stream::records(stream).into()) };
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuStreamBeginCapture_v2(stream: *const Stream, _: c_uint) -> c_int {
    // SAFETY: what `cuStreamCreate` gave.
    let Some(stream) = (unsafe { stream.as_ref() }) else {
        return fail(CAPTURE_UNSUPPORTED, "the default stream does not record");
    };
    if stream.recorded.borrow().is_some() {
        return CAPTURE_UNSUPPORTED;
    }
    *stream.recorded.borrow_mut() = Some(Vec::new());
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuStreamEndCapture(stream: *const Stream, graph: *mut *mut c_void) -> c_int {
    // SAFETY: what `cuStreamCreate` gave.
    let recorded = unsafe { stream.as_ref() }.and_then(|stream| stream.recorded.borrow_mut().take());
    let Some(recorded) = recorded else { return INVALID_VALUE };
    // SAFETY: the caller's, as in CUDA.
    unsafe { graph.write(Box::into_raw(Box::new(Graph(recorded))).cast()) };
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuGraphInstantiateWithFlags(
    ready: *mut *mut c_void,
    graph: *mut c_void,
    _: u64,
) -> c_int {
    // SAFETY: the caller's, as in CUDA.
    unsafe { ready.write(graph) };
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuGraphLaunch(ready: *const c_void, stream: *const Stream) -> c_int {
    if Stream::records(stream) {
        return CAPTURE_UNSUPPORTED;
    }
    // SAFETY: what `cuGraphInstantiateWithFlags` gave.
    let graph = unsafe { &*ready.cast::<Graph>() };
    graph.0.iter().map(|work| work()).find(|code| *code != SUCCESS).unwrap_or(SUCCESS)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuGraphExecDestroy(_: *mut c_void) -> c_int {
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuGraphDestroy(graph: *mut c_void) -> c_int {
    // SAFETY: what `cuStreamEndCapture` gave; the ready one was the same.
    drop(unsafe { Box::from_raw(graph.cast::<Graph>()) });
    SUCCESS
}
