//! A coordinator whose files are in memory, with TLS on both sides: who is let in, what it says of workers that do not let it in, and
//! what a reload replaces.

mod tokens;
mod transport;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use chorus_net::testing::{Authority, Validity};
use chorus_net::{ClientSettings, ClientTls, Dialer, Identity, Wire, endpoint_at};
use tonic::transport::server::TcpIncoming;

use super::*;
use crate::steward::Handle;

/// Files by their names.
#[derive(Clone, Default)]
struct Folder(Arc<Mutex<HashMap<String, Vec<u8>>>>);

/// A coordinator with an admin port.
struct Secured {
    coordinator: Coordinator,
    admin: SocketAddr,
    handle: Handle,
}

impl Folder {
    fn put(&self, name: &str, bytes: impl Into<Vec<u8>>) {
        self.0.lock().unwrap().insert(name.to_owned(), bytes.into());
    }

    fn put_identity(&self, name: &str, identity: Identity) {
        self.put(&format!("{name}.pem"), identity.certificate);
        self.put(&format!("{name}.key"), identity.key);
    }

    fn read(&self, path: &Path) -> Result<Vec<u8>, String> {
        let name = path.to_string_lossy();
        self.0.lock().unwrap().get(&*name).cloned().ok_or_else(|| format!("there is no {name}"))
    }

    fn config(&self) -> Result<Config, String> {
        let toml = String::from_utf8(self.read(Path::new("ensemble.toml"))?).unwrap();
        let mut config = Config::new(Some(&toml), Overrides::default()).map_err(|error| error.to_string())?;
        config.read_secrets(|path| self.read(path)).map_err(|error| error.to_string())?;
        Ok(config)
    }

    fn put_config(&self, keys: &str, workers: &[&ScriptedWorker]) {
        let members = workers
            .iter()
            .zip(["alto", "bass"])
            .map(|(worker, name)| format!("[[members]]\nname = {name:?}\naddress = {:?}\n", worker.url()));
        self.put("ensemble.toml", format!("{keys}\n{}", members.collect::<String>()));
    }

    async fn start(&self) -> Secured {
        let listeners = (TcpListener::bind("127.0.0.1:0").await, TcpListener::bind("127.0.0.1:0").await);
        let (listener, admin) = (listeners.0.unwrap(), listeners.1.unwrap());
        let (address, admin_address) = (listener.local_addr().unwrap(), admin.local_addr().unwrap());
        let folder = self.clone();
        let server = crate::Coordinator::new(folder.config().unwrap()).unwrap();
        let server = server.with_source(Arc::new(move || folder.config())).with_admin(admin);
        let handle = server.handle();
        let (shutdown, asked) = oneshot::channel();
        let running = tokio::spawn(server.serve(TcpIncoming::from(listener), async move {
            asked.await.unwrap();
        }));
        Secured { coordinator: Coordinator { address, shutdown, running }, admin: admin_address, handle }
    }
}

/// What a client trusts and shows.
fn trust(ca: &Authority, identity: Option<Identity>) -> ClientTls {
    ClientTls::new(ClientSettings { ca: Some(ca.pem()), identity }.prepare().unwrap())
}

async fn channel(address: SocketAddr, tls: &ClientTls) -> Result<Wire, tonic::transport::Error> {
    let endpoint = endpoint_at(format!("https://{address}").parse().unwrap());
    Dialer::secure(endpoint, tls.clone(), "127.0.0.1").unwrap().connect().await
}
