//! Graphs, which do what a stream has recorded. Knows nothing about what that is.

use std::ffi::{c_int, c_uint, c_void};
use std::sync::Arc;

use crate::stream::{Stream, Work};
use crate::{CAPTURE_UNSUPPORTED, INVALID_VALUE, SUCCESS};

/// A graph, before and after it was made ready: the same here. A stream that is at it keeps it.
#[expect(clippy::arc_with_non_send_sync, reason = "whoever uses a stream takes turns")]
fn graph(work: Vec<Work>) -> Arc<Vec<Work>> {
    Arc::new(work)
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamBeginCapture_v2(stream: *const Stream, _: c_uint) -> c_int {
    Stream::record(stream)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuStreamEndCapture(stream: *const Stream, place: *mut *const c_void) -> c_int {
    let Some(recorded) = Stream::recorded(stream) else { return INVALID_VALUE };
    // SAFETY: the caller's, as in CUDA.
    unsafe { place.write(Arc::into_raw(graph(recorded)).cast()) };
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
    let graph = ready.cast::<Vec<Work>>();
    // SAFETY: what `cuGraphInstantiateWithFlags` gave, of which one more is held from here on.
    let graph = unsafe {
        Arc::increment_strong_count(graph);
        Arc::from_raw(graph)
    };
    let all = move || graph.iter().map(|work| work()).find(|code| *code != SUCCESS).unwrap_or(SUCCESS);
    Stream::give(stream, Box::new(all))
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphExecDestroy(_: *mut c_void) -> c_int {
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuGraphDestroy(graph: *const c_void) -> c_int {
    // SAFETY: what `cuStreamEndCapture` gave; the ready one was the same.
    drop(unsafe { Arc::from_raw(graph.cast::<Vec<Work>>()) });
    SUCCESS
}
