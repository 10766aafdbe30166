//! Tokens: who is let in to what, and what the others are told.

use chorus_proto::v1::ConfigurationRequest;
use chorus_proto::v1::admin_client::AdminClient;
use tonic::Request;
use tonic_types::StatusExt as _;

use super::*;

const READ: &str = "read-read-read-read";
const ADMIN: &str = "admin-admin-admin-admin";

fn file(names: &[(&str, &str, &str)]) -> String {
    let tokens = names.iter().map(|(name, scope, token)| {
        format!("[[tokens]]\nname = '{name}'\nscopes = ['{scope}']\ntoken = '{token}'\n")
    });
    tokens.collect()
}

fn with<T>(authorization: Option<&str>, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(authorization) = authorization {
        request.metadata_mut().insert("authorization", authorization.parse().unwrap());
    }
    request
}

async fn plain(address: SocketAddr) -> Channel {
    Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

/// What `Status` and `Configuration` say to this header: nothing where they answer.
async fn told(
    secured: &Secured,
    authorization: Option<&str>,
) -> (Option<tonic::Status>, Option<tonic::Status>) {
    let mut client = EnsembleClient::new(plain(secured.coordinator.address).await);
    let mut admin = AdminClient::new(plain(secured.admin).await);
    let status = client.status(with(authorization, StatusRequest {})).await.err();
    (status, admin.configuration(with(authorization, ConfigurationRequest {})).await.err())
}

async fn reflection(address: SocketAddr, authorization: Option<&str>) -> Code {
    let request = tonic_reflection::pb::v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut client = ServerReflectionClient::new(plain(address).await);
    let requests = tokio_stream::once(request);
    client
        .server_reflection_info(with(authorization, requests))
        .await
        .err()
        .map_or(Code::Ok, |status| status.code())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_for_its_scopes_and_without_one_there_is_health() {
    let worker = ScriptedWorker::start(&vocabulary(), 1, Manner::Faithful);
    let folder = Folder::default();
    folder.put_config("[auth]\ntokens = 'tokens.toml'\n", &[&worker]);
    folder.put("tokens.toml", file(&[("us", "read", READ), ("ops", "admin", ADMIN)]));
    let secured = folder.start().await;
    let (reads, administers) = (format!("Bearer {READ}"), format!("bearer {ADMIN}"));
    for (authorization, on_status, on_admin) in [
        (None, Code::Unauthenticated, Code::Unauthenticated),
        (Some("Bearer nobody-knows-this-one"), Code::Unauthenticated, Code::Unauthenticated),
        (Some(READ), Code::Unauthenticated, Code::Unauthenticated),
        (Some("Basic cmVhZA=="), Code::Unauthenticated, Code::Unauthenticated),
        (Some(reads.as_str()), Code::Ok, Code::PermissionDenied),
        (Some(administers.as_str()), Code::PermissionDenied, Code::Ok),
    ] {
        let (status, admin) = told(&secured, authorization).await;
        for (refusal, code, scope) in [(status, on_status, "read"), (admin, on_admin, "admin")] {
            let Some(refusal) = refusal else {
                assert_eq!(code, Code::Ok, "{authorization:?}");
                continue;
            };
            assert_eq!(refusal.code(), code, "{authorization:?}: {refusal}");
            let info = refusal.get_details_error_info().unwrap();
            assert_eq!((info.domain.as_str(), info.metadata["scope"].as_str()), ("chorus", scope));
            let challenge = refusal.metadata().get("www-authenticate").unwrap().to_str().unwrap();
            assert!(challenge.starts_with("Bearer"), "{challenge}");
            assert_eq!(challenge.contains("insufficient_scope"), code == Code::PermissionDenied);
        }
    }
    until(&mut secured.coordinator.health("").await, ServingStatus::Serving).await;
    assert_eq!(reflection(secured.coordinator.address, None).await, Code::Unauthenticated);
    assert_eq!(reflection(secured.coordinator.address, Some(&administers)).await, Code::Ok);

    // A token that is taken away is away, and one that is new is there, with the next request.
    folder.put("tokens.toml", file(&[("new", "read", "new-new-new-new-new")]));
    secured.handle.reload(false).await.unwrap();
    assert_eq!(told(&secured, Some(&reads)).await.0.unwrap().code(), Code::Unauthenticated);
    assert!(told(&secured, Some("Bearer new-new-new-new-new")).await.0.is_none());
    folder.put("tokens.toml", "nothing");
    let refusal = secured.handle.reload(false).await.unwrap_err().to_string();
    assert!(refusal.contains("auth.tokens: line 1"), "{refusal}");
    assert!(told(&secured, Some("Bearer new-new-new-new-new")).await.0.is_none());
    secured.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reflection_is_open_where_that_is_configured() {
    let worker = ScriptedWorker::start(&vocabulary(), 1, Manner::Faithful);
    let folder = Folder::default();
    folder.put_config("[auth]\ntokens = 'tokens.toml'\nopen_reflection = true\n", &[&worker]);
    folder.put("tokens.toml", file(&[("us", "read", READ)]));
    let secured = folder.start().await;
    assert_eq!(reflection(secured.coordinator.address, None).await, Code::Ok);
    assert_eq!(told(&secured, None).await.0.unwrap().code(), Code::Unauthenticated);
    secured.coordinator.stop().await;
}

#[test]
fn tokens_that_nobody_has_read_let_nobody_in() {
    let toml = "[auth]\ntokens = 'a'\n[[members]]\nname = 'alto'\naddress = 'http://h:1'\n";
    let config = Config::new(Some(toml), Overrides::default()).unwrap();
    let error = crate::security::Security::new(&config).err().unwrap();
    assert_eq!(error.to_string(), "auth: its files were not read");
}
