//! The service `chorus.v1.Admin` over gRPC, and its server: what operators change while the coordinator runs.
//!
//! Translates, and knows nothing about how a change is carried out.

use std::error::Error;

use chorus_net::secured_connections;
use chorus_proto::FILE_DESCRIPTOR_SET;
use chorus_proto::v1::admin_server::{self, AdminServer};
use chorus_proto::v1::{
    self, ConfigurationReply, ConfigurationRequest, ErrorCode, MemberSettings, ReloadRequest,
    SetMembersRequest,
};
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use crate::config::{Addresses, Connections, MemberConfig};
use crate::failure::Failure;
use crate::quorum::Quorum;
use crate::run_error::RunError;
use crate::security::{Scope, Security};
use crate::steward::{Handle, InForce, MemberList, ReconfigureError};

/// Calls of one operator at a time: far more than anybody makes.
const MOST_STREAMS: u32 = 32;

/// The service that operators speak with.
struct AdminService {
    handle: Handle,
}

/// Serves on `listener` until `shutdown` resolves.
pub(crate) async fn serve(
    handle: Handle,
    listener: TcpListener,
    security: &Security,
    connections: &Connections,
    shutdown: impl Future<Output = ()>,
) -> Result<(), RunError> {
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .with_service_name(admin_server::SERVICE_NAME)
    };
    let router = tonic::transport::Server::builder()
        .layer(security.gate(Scope::Admin))
        .max_concurrent_streams(MOST_STREAMS)
        .http2_keepalive_interval(Some(connections.keepalive()))
        .http2_keepalive_timeout(Some(connections.keepalive_timeout()))
        .add_service(AdminServer::new(AdminService { handle }))
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?);
    let incoming = secured_connections(TcpIncoming::from(listener), security.server.clone());
    Ok(router.serve_with_incoming_shutdown(incoming, shutdown).await?)
}

#[tonic::async_trait]
impl admin_server::Admin for AdminService {
    async fn configuration(
        &self,
        _request: Request<ConfigurationRequest>,
    ) -> Result<Response<ConfigurationReply>, Status> {
        Ok(Response::new(reply(self.handle.in_force())))
    }

    async fn set_members(
        &self,
        request: Request<SetMembersRequest>,
    ) -> Result<Response<ConfigurationReply>, Status> {
        let request = request.into_inner();
        let allow_down = request.allow_down;
        answer(self.handle.set_members(list(request), allow_down).await)
    }

    async fn reload(&self, request: Request<ReloadRequest>) -> Result<Response<ConfigurationReply>, Status> {
        answer(self.handle.reload(request.into_inner().allow_down).await)
    }
}

/// What a request asks for, checked by nobody yet.
pub(crate) fn list(request: SetMembersRequest) -> MemberList {
    MemberList {
        members: request.members.into_iter().map(member).collect(),
        quorum: request.quorum.map(|quorum| Quorum {
            members: usize::try_from(quorum.members).unwrap_or(usize::MAX),
            weight: quorum.weight,
        }),
        expected_revision: request.expected_revision,
    }
}

fn member(settings: MemberSettings) -> MemberConfig {
    MemberConfig {
        name: settings.name,
        weight: settings.weight.unwrap_or(1.0),
        address: Addresses::new(settings.addresses),
    }
}

fn answer(changed: Result<InForce, ReconfigureError>) -> Result<Response<ConfigurationReply>, Status> {
    match changed {
        Ok(in_force) => Ok(Response::new(reply(in_force))),
        Err(error) => Err(failure(&error).into()),
    }
}

fn reply(InForce { revision, config }: InForce) -> ConfigurationReply {
    ConfigurationReply {
        revision,
        rule: v1::Rule::from(config.fusion.rule).into(),
        threshold: config.fusion.threshold,
        quorum: Some(config.quorum.into()),
        members: config.members.into_iter().map(settings).collect(),
    }
}

fn settings(member: MemberConfig) -> MemberSettings {
    MemberSettings {
        name: member.name,
        weight: Some(member.weight),
        addresses: member.address.as_slice().to_vec(),
    }
}

fn failure(error: &ReconfigureError) -> Failure {
    let sentence = sentence(error);
    let failure = Failure::new(code(error), &sentence);
    match error {
        ReconfigureError::Config(of_config) => match of_config.key() {
            Some(key) => failure.field(&key, &sentence),
            None => failure,
        },
        ReconfigureError::Address { .. } | ReconfigureError::Weights(_) => {
            failure.field("members", &sentence)
        }
        ReconfigureError::Frozen(frozen) => failure.with("key", &frozen.key),
        ReconfigureError::Revision { in_force, .. } => failure.with("revision", &in_force.to_string()),
        ReconfigureError::NotUp(absent) => {
            let names: Vec<&str> = absent.iter().map(|(name, _)| name.as_str()).collect();
            failure.with("not_up", &names.join(","))
        }
        ReconfigureError::NoSource
        | ReconfigureError::Unreadable(_)
        | ReconfigureError::OtherEnsemble(_)
        | ReconfigureError::Security(_)
        | ReconfigureError::ShuttingDown => failure,
    }
}

fn code(error: &ReconfigureError) -> ErrorCode {
    match error {
        ReconfigureError::Config(_) | ReconfigureError::Address { .. } | ReconfigureError::Weights(_) => {
            ErrorCode::InvalidArgument
        }
        ReconfigureError::NoSource
        | ReconfigureError::Unreadable(_)
        | ReconfigureError::Frozen(_)
        | ReconfigureError::Revision { .. }
        | ReconfigureError::OtherEnsemble(_)
        | ReconfigureError::Security(_)
        | ReconfigureError::NotUp(_) => ErrorCode::FailedPrecondition,
        ReconfigureError::ShuttingDown => ErrorCode::Unavailable,
    }
}

/// An error with its causes: "context: cause: cause's cause".
fn sentence(error: &dyn Error) -> String {
    let mut sentence = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        sentence = format!("{sentence}: {error}");
        cause = error.source();
    }
    sentence
}
