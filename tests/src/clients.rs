//! The public API as a client uses it, with the few helpers that scenarios share.

use std::{future::Future, time::Duration};

use chorus_proto::v1::{
    self, GenerateReply, GenerateRequest, Input, Recovery, ScoreReply, ScoreRequest, StatusRequest, input,
    member_status::Health,
};
use tokio::time::{Instant, sleep};
use tonic::{Status, transport::Channel};

use crate::process::PATIENCE;

pub type EnsembleClient = v1::ensemble_client::EnsembleClient<Channel>;

pub fn text_input(text: &str) -> Option<Input> {
    Some(Input { input: Some(input::Input::Text(text.to_owned())) })
}

/// Runs a generation to its end.
pub async fn generate(
    client: &mut EnsembleClient,
    request: GenerateRequest,
) -> Result<Vec<GenerateReply>, Status> {
    let mut stream = client.generate(request).await?.into_inner();
    let mut replies = Vec::new();
    while let Some(reply) = stream.message().await? {
        replies.push(reply);
    }
    Ok(replies)
}

pub fn joined_text(replies: &[GenerateReply]) -> String {
    replies.iter().map(|reply| reply.text.as_str()).collect()
}

/// Scores a text under the ensemble's own settings.
pub async fn score_text(client: &mut EnsembleClient, text: &str) -> Result<ScoreReply, Status> {
    let request = ScoreRequest { input: text_input(text), fusion: None, per_token: true };
    Ok(client.score(request).await?.into_inner())
}

pub async fn members_up(client: &mut EnsembleClient) -> usize {
    match client.status(StatusRequest {}).await {
        Ok(reply) => reply.into_inner().members.iter().filter(|member| member.health() == Health::Up).count(),
        Err(_) => 0,
    }
}

pub async fn replicas_up(client: &mut EnsembleClient) -> usize {
    let Ok(reply) = client.status(StatusRequest {}).await else {
        return 0;
    };
    let members = reply.into_inner().members;
    let replicas = members.iter().flat_map(|member| &member.replicas);
    replicas.filter(|replica| replica.health() == Health::Up).count()
}

/// What was done at all members together so that no loss shows.
pub async fn recovery(client: &mut EnsembleClient) -> Recovery {
    let status = client.status(StatusRequest {}).await.expect("it serves").into_inner();
    let each = status.members.iter().filter_map(|member| member.recovery);
    each.fold(Recovery::default(), |sum, of_one| Recovery {
        takeovers: sum.takeovers + of_one.takeovers,
        recomputed_tokens: sum.recomputed_tokens + of_one.recomputed_tokens,
        hedges: sum.hedges + of_one.hedges,
        hedges_won: sum.hedges_won + of_one.hedges_won,
    })
}

/// Asks again and again until the condition holds.
///
/// # Panics
/// It never did.
pub async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "waited in vain for: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// The plans for which anything has gone to a member, by name.
pub async fn plans(client: &mut EnsembleClient) -> Vec<String> {
    let status = client.status(StatusRequest {}).await.expect("it serves").into_inner();
    let traffic = status.members.iter().flat_map(|member| &member.traffic);
    let mut plans: Vec<String> =
        traffic.filter(|plan| plan.tokens > 0).map(|plan| plan.plan.clone()).collect();
    plans.sort_unstable();
    plans.dedup();
    plans
}
