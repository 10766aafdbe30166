//! [`Background`]: a thread for what looks at the server from outside and must not hold it up: metrics, traces. Knows nothing
//! about what is done there.

use anyhow::Context as _;
use tokio::runtime::{Builder, EnterGuard, Runtime};

/// A runtime with one thread of its own. Whatever runs there ends with it.
#[derive(Debug)]
pub(super) struct Background(Option<Runtime>);

impl Background {
    /// # Errors
    /// The system has no thread for it.
    pub(super) fn new() -> anyhow::Result<Self> {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(1).thread_name("chorus-telemetry").enable_all();
        let runtime = builder.build().context("can't start a thread for metrics and traces")?;
        Ok(Self(Some(runtime)))
    }

    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(runtime) = &self.0 {
            runtime.spawn(task);
        }
    }

    /// Whatever is made while this is held runs there.
    pub(super) fn enter(&self) -> Option<EnterGuard<'_>> {
        self.0.as_ref().map(Runtime::enter)
    }
}

impl Drop for Background {
    /// A runtime may not be waited for where another one runs.
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
