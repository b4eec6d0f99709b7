//! The thread that serves HTTP, away from the packets.

use anyhow::Context;
use tokio::sync::{mpsc, oneshot};

use crate::api::{self, Query};

/// The admin server; it ends when this is dropped.
pub struct Admin {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Admin {
    /// Serves on `listener`, putting questions to `relay`.
    pub fn start(
        listener: std::net::TcpListener,
        relay: mpsc::Sender<Query>,
    ) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let serve = move || {
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                let stopped = async {
                    let _ = stopped.await;
                };
                // Requests under way need the relay, which is gone: do not wait for them.
                tokio::select! {
                    served = api::serve(listener, relay, std::future::pending()) => served,
                    () = stopped => Ok(()),
                }
            })
        };
        let serve = move || {
            if let Err(error) = serve() {
                tracing::error!("the admin server ended: {error}");
            }
        };
        let thread = std::thread::Builder::new().name("admin".into()).spawn(serve);
        let thread = thread.context("no thread for the admin server")?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It ends at once: nothing in it outlives the signal.
            let _ = thread.join();
        }
    }
}
