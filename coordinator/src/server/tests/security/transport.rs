//! Certificates.

use chorus_net::{ServerSettings, ServerTls};
use chorus_proto::v1::ConfigurationRequest;
use chorus_proto::v1::admin_client::AdminClient;

use super::*;
use crate::testing::scripted_replica::Style;

const HOST: [&str; 1] = ["127.0.0.1"];
const TLS: &str = "[tls]\ncertificate = 'server.pem'\nkey = 'server.key'\nclient_ca = 'clients.pem'\n";
const WORKERS: &str = "[worker_tls]\nca = 'workers.pem'\ncertificate = 'us.pem'\nkey = 'us.key'\n";

/// A worker that wants certificates of `clients`.
fn worker(identity: Identity, clients: &Authority) -> ScriptedWorker {
    let settings = ServerSettings { identity, client_ca: Some(clients.pem()) };
    let tls = ServerTls::new(settings.prepare().unwrap());
    ScriptedWorker::start_secured(Some(tls), Style::Noise, &vocabulary(), 1, Manner::Faithful)
}

/// The reason why the only member is not up, once there is one.
async fn reason(client: &mut EnsembleClient<Channel>) -> String {
    let told = async {
        loop {
            let status = client.status(StatusRequest {}).await.unwrap().into_inner();
            let reason = &status.members[0].reason;
            if reason.contains(": ") {
                return reason.clone();
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), told).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_hops_and_the_admin_port_are_secured_and_certificates_are_replaced() {
    let (ca, next) = (Authority::new("ours"), Authority::new("next"));
    let worker = worker(ca.vouch(&HOST, Validity::Now), &ca);
    let folder = Folder::default();
    folder.put_config(&format!("{TLS}{WORKERS}"), &[&worker]);
    folder.put_identity("server", ca.vouch(&HOST, Validity::Now));
    folder.put_identity("us", ca.vouch(&["coordinator"], Validity::Now));
    folder.put("clients.pem", ca.pem());
    folder.put("workers.pem", ca.pem());
    let secured = folder.start().await;
    let us = trust(&ca, Some(ca.vouch(&["client"], Validity::Now)));
    let mut client = EnsembleClient::new(channel(secured.coordinator.address, &us).await.unwrap());
    let up = async {
        while client.status(StatusRequest {}).await.unwrap().into_inner().members[0].health() != Health::Up {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), up).await.unwrap();
    assert_eq!(rest(client.generate(request(3)).await.unwrap().into_inner()).await.len(), 4);
    let mut admin = AdminClient::new(channel(secured.admin, &us).await.unwrap());
    assert_eq!(admin.configuration(ConfigurationRequest {}).await.unwrap().into_inner().revision, 1);

    // Strangers come in nowhere.
    for address in [secured.coordinator.address, secured.admin] {
        let stranger = channel(address, &trust(&ca, None)).await.unwrap();
        AdminClient::new(stranger).configuration(ConfigurationRequest {}).await.unwrap_err();
    }

    // What can't be used changes nothing; what can is in use at once.
    folder.put("server.key", "no key");
    let refusal = secured.handle.reload(false).await.unwrap_err().to_string();
    assert!(refusal.contains("tls.key: there is none in it"), "{refusal}");
    folder.put_identity("server", next.vouch(&HOST, Validity::Now));
    folder.put("clients.pem", next.pem());
    assert_eq!(secured.handle.reload(false).await.unwrap().revision, 2);
    let theirs = trust(&next, Some(next.vouch(&["client"], Validity::Now)));
    for address in [secured.coordinator.address, secured.admin] {
        channel(address, &us).await.unwrap_err();
        channel(address, &theirs).await.unwrap();
    }
    client.status(StatusRequest {}).await.expect("a connection that there is stays");
    secured.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_can_t_be_trusted_or_does_not_trust_us_is_down_for_a_reason() {
    let (ca, stranger) = (Authority::new("ours"), Authority::new("theirs"));
    let ours = || ca.vouch(&HOST, Validity::Now);
    let (with, without) = (WORKERS, "[worker_tls]\nca = 'workers.pem'\n");
    for (shown, keys, us, words) in [
        (ours(), without, ours(), "the server wants a certificate from its clients, and none was shown"),
        (
            ours(),
            with,
            stranger.vouch(&HOST, Validity::Now),
            "does not accept our certificate: it is of an unknown",
        ),
        (ours(), with, ca.vouch(&HOST, Validity::Over), "does not accept our certificate: it has expired"),
        (stranger.vouch(&HOST, Validity::Now), with, ours(), "the server's certificate is of an unknown CA"),
        (ca.vouch(&HOST, Validity::Over), with, ours(), "the server's certificate has expired"),
        (ca.vouch(&["alto"], Validity::Now), with, ours(), "for another name: for alto, not for 127.0.0.1"),
    ] {
        let worker = worker(shown, &ca);
        let folder = Folder::default();
        folder.put_config(keys, &[&worker]);
        folder.put("workers.pem", ca.pem());
        folder.put_identity("us", us);
        let secured = folder.start().await;
        let mut client = EnsembleClient::new(secured.coordinator.channel().await);
        let reason = reason(&mut client).await;
        assert!(reason.starts_with(&format!("unreachable at {}", worker.url())), "{reason}");
        assert!(reason.contains(words), "{reason}");
        // What is mended is found by the next attempt, without a restart.
        if us_are_at_fault(words) {
            folder.put_identity("us", ours());
            folder.put_config(with, &[&worker]);
            let reloaded = secured.handle.reload(true).await;
            if keys == with {
                reloaded.unwrap();
                until_all_are_up(&mut client).await;
            } else {
                let refusal = reloaded.unwrap_err().to_string();
                assert!(
                    refusal.starts_with("worker_tls.certificate: \"us.pem\" is not allowed while"),
                    "{refusal}"
                );
            }
        }
        secured.coordinator.stop().await;
    }
}

fn us_are_at_fault(words: &str) -> bool {
    words.contains("our certificate") || words.contains("none was shown")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_in_tls_is_not_reached_in_plain_text_and_the_other_way_round() {
    let ca = Authority::new("ours");
    let secure = worker(ca.vouch(&HOST, Validity::Now), &ca);
    let plain = ScriptedWorker::start(&vocabulary(), 1, Manner::Faithful);
    for (address, words) in [
        (secure.url().replace("https", "http"), "the server speaks TLS: this is plain text"),
        (plain.url().replace("http", "https"), "the server does not speak TLS"),
    ] {
        let folder = Folder::default();
        folder.put("workers.pem", ca.pem());
        let member = format!("[[members]]\nname = 'alto'\naddress = {address:?}\n");
        folder.put("ensemble.toml", format!("[worker_tls]\nca = 'workers.pem'\n{member}"));
        let secured = folder.start().await;
        let mut client = EnsembleClient::new(secured.coordinator.channel().await);
        let reason = reason(&mut client).await;
        assert!(reason.contains(words), "{reason}");
        secured.coordinator.stop().await;
    }
}

#[tokio::test]
async fn a_name_of_workers_is_what_their_certificates_are_for() {
    let ca = Authority::new("ours");
    let worker = worker(ca.vouch(&["localhost"], Validity::Now), &ca);
    let folder = Folder::default();
    folder.put("workers.pem", ca.pem());
    folder.put_identity("us", ca.vouch(&["us"], Validity::Now));
    let port = worker.address.port();
    let member = format!("[[members]]\nname = 'alto'\naddress = 'dns+https://localhost:{port}'\n");
    folder.put("ensemble.toml", format!("{WORKERS}{member}"));
    let secured = folder.start().await;
    until(&mut secured.coordinator.health("").await, ServingStatus::Serving).await;
    secured.coordinator.stop().await;
}

#[test]
fn tls_without_its_files_is_no_plain_text() {
    let member = "[[members]]\nname = 'alto'\naddress = 'http://h:1'\n";
    let config = |toml: &str| Config::new(Some(toml), Overrides::default());
    for (table, toml) in [("tls", format!("{TLS}{member}")), ("worker_tls", format!("{WORKERS}{member}"))] {
        let error = crate::security::Security::new(&config(&toml).unwrap()).err().unwrap();
        assert_eq!(error.to_string(), format!("{table}: its files were not read"));
    }
    let secure = config(&member.replace("http", "https")).unwrap_err().to_string();
    assert!(secure.starts_with("worker_tls.ca: the address of \"alto\" is one of TLS"), "{secure}");
    let half = config(&format!("[worker_tls]\nca = 'a'\nkey = 'b'\n{member}")).unwrap_err().to_string();
    assert_eq!(half, "worker_tls: certificate and key belong together; allowed: both, or neither");
}
