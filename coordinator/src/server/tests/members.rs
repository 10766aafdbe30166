//! The configuration of a running coordinator is changed: seen by what comes next, and by nothing that runs.

mod learned;

use std::sync::{Arc, Mutex};

use chorus_proto::v1::admin_client::AdminClient;
use chorus_proto::v1::{
    ConfigurationReply, ConfigurationRequest, MemberSettings, Quorum, ReloadRequest, SamplingOptions,
    SetMembersRequest, StatusReply,
};
use tonic::Status;
use tonic::transport::server::TcpIncoming;
use tonic_types::StatusExt as _;

use super::*;
use crate::steward::Handle;

/// A coordinator with an admin service, whose "file" is in memory.
struct Stage {
    coordinator: Coordinator,
    admin: AdminClient<Channel>,
    client: EnsembleClient<Channel>,
    handle: Handle,
    file: Arc<Mutex<String>>,
    /// The file of learned weights, where there is one.
    learned: Arc<Mutex<Option<String>>>,
}

/// `keys` stand before the members.
async fn stage(keys: &str, members: &[MemberSettings]) -> Stage {
    let file = Arc::new(Mutex::new(toml(keys, members)));
    let learned = Arc::new(Mutex::new(None::<String>));
    let (source, weights) = (Arc::clone(&file), Arc::clone(&learned));
    let read = move || {
        let mut config = Config::new(Some(&source.lock().unwrap()), Overrides::default())
            .map_err(|error| error.to_string())?;
        if let Some(learned) = &*weights.lock().unwrap() {
            config.learn(learned).map_err(|error| error.to_string())?;
        }
        Ok(config)
    };
    let (listener, admin) = (TcpListener::bind("127.0.0.1:0").await, TcpListener::bind("127.0.0.1:0").await);
    let (listener, admin) = (listener.unwrap(), admin.unwrap());
    let (address, admin_address) = (listener.local_addr().unwrap(), admin.local_addr().unwrap());
    let server = crate::Coordinator::new(read().unwrap()).unwrap();
    let server = server.with_source(Arc::new(read)).with_admin(admin);
    let handle = server.handle();
    let (shutdown, asked) = oneshot::channel();
    let running = tokio::spawn(server.serve(TcpIncoming::from(listener), async move {
        asked.await.unwrap();
    }));
    let coordinator = Coordinator { address, shutdown, running };
    let admin = Channel::from_shared(format!("http://{admin_address}")).unwrap().connect().await.unwrap();
    // What is sent before anybody reads is a small part of a text.
    let channel =
        Channel::from_shared(format!("http://{address}")).unwrap().initial_stream_window_size(16 * 1024);
    let mut client = EnsembleClient::new(channel.connect().await.unwrap());
    until_all_are_up(&mut client).await;
    Stage { coordinator, admin: AdminClient::new(admin), client, handle, file, learned }
}

fn toml(keys: &str, members: &[MemberSettings]) -> String {
    let members = members.iter().map(|MemberSettings { name, weight, addresses }| {
        let weight = weight.unwrap();
        format!("[[members]]\nname = {name:?}\nweight = {weight:?}\naddress = {addresses:?}\n")
    });
    format!("{keys}\n{}", members.collect::<String>())
}

fn member(name: &str, weight: f64, worker: &ScriptedWorker) -> MemberSettings {
    MemberSettings { name: name.to_owned(), weight: Some(weight), addresses: vec![worker.url()] }
}

fn nowhere(name: &str) -> MemberSettings {
    let addresses = vec!["http://127.0.0.1:9".to_owned()];
    MemberSettings { name: name.to_owned(), weight: Some(1.0), addresses }
}

fn worker(seed: u64) -> ScriptedWorker {
    ScriptedWorker::start(&vocabulary(), seed, Manner::Faithful)
}

fn list(members: &[MemberSettings]) -> SetMembersRequest {
    SetMembersRequest { members: members.to_vec(), ..SetMembersRequest::default() }
}

impl Stage {
    async fn set(&mut self, request: SetMembersRequest) -> Result<ConfigurationReply, Status> {
        Ok(self.admin.set_members(request).await?.into_inner())
    }

    async fn configuration(&mut self) -> ConfigurationReply {
        self.admin.configuration(ConfigurationRequest {}).await.unwrap().into_inner()
    }

    async fn status(&mut self) -> StatusReply {
        self.client.status(StatusRequest {}).await.unwrap().into_inner()
    }

    /// A generation that is in progress for as long as nobody reads on.
    async fn begin(&mut self) -> Streaming<GenerateReply> {
        let sampling = Some(SamplingOptions { seed: Some(7), ..SamplingOptions::default() });
        let request = GenerateRequest { sampling, log_probs: true, ..request(1500) };
        let mut stream = self.client.generate(request).await.unwrap().into_inner();
        stream.message().await.unwrap().unwrap();
        stream
    }
}

/// The members in a whole generation, who never change; what its tokens are and how likely.
fn told(replies: &[GenerateReply]) -> (Vec<String>, Vec<(u32, f64)>) {
    let members = replies[0].participation.as_ref().unwrap().participants.clone();
    for reply in replies {
        let participation = reply.participation.as_ref().unwrap();
        assert_eq!((&participation.participants, participation.missing.len()), (&members, 0));
    }
    let tokens = replies.iter().filter_map(|reply| reply.token.as_ref());
    (members, tokens.map(|token| (token.id, token.log_prob.unwrap())).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weights_change_for_the_next_request_and_not_for_the_one_that_runs() {
    let (alto, bass) = (worker(1), worker(2));
    let mut stage = stage("", &[member("alto", 1.0, &alto), member("bass", 1.0, &bass)]).await;
    let before = told(&rest(stage.begin().await).await);
    let running = stage.begin().await;
    let reply = stage.set(list(&[member("alto", 5.0, &alto), member("bass", 1.0, &bass)])).await.unwrap();
    assert_eq!((reply.revision, reply.members[0].weight), (2, Some(5.0)));
    assert_eq!(stage.configuration().await, reply);
    let status = stage.status().await;
    assert_eq!((status.revision, status.members[0].weight), (2, 5.0));
    let next = told(&rest(stage.begin().await).await);
    assert_eq!(next.0, before.0);
    assert!(next.1 != before.1, "another mixture");
    assert!(told(&rest(running).await) == before, "what runs keeps its weights");
    stage.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_come_and_go_and_what_runs_keeps_those_with_which_it_began() {
    let (alto, bass, cello) = (worker(1), worker(2), worker(3));
    let mut stage = stage("", &[member("alto", 1.0, &alto), member("bass", 1.0, &bass)]).await;
    let running = stage.begin().await;
    // Added, removed and in another order at once.
    let next = [member("cello", 1.0, &cello), member("alto", 1.0, &alto)];
    assert_eq!(stage.set(list(&next)).await.unwrap().revision, 2);
    let names: Vec<_> = stage.status().await.members.into_iter().map(|member| member.name).collect();
    assert_eq!(names, ["cello", "alto"]);
    assert_eq!(told(&rest(stage.begin().await).await).0, ["cello", "alto"]);
    bass.until_open(1).await;
    assert_eq!(told(&rest(running).await).0, ["alto", "bass"]);
    bass.until_open(0).await;
    assert_eq!(stage.set(list(&[member("bass", 1.0, &bass)])).await.unwrap().revision, 3);
    assert_eq!(told(&rest(stage.begin().await).await).0, ["bass"]);
    stage.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_member_s_link_ends_with_the_last_request_that_has_it() {
    let (alto, bass) = (worker(1), worker(2));
    let mut stage = stage("", &[member("alto", 1.0, &alto), member("bass", 1.0, &bass)]).await;
    // As a request has it.
    let held = Arc::clone(&stage.handle.ensembles().borrow());
    let mut presence = held.roster.members[1].seats()[0].replica.presence();
    stage.set(list(&[member("alto", 1.0, &alto)])).await.unwrap();
    assert!(presence.borrow().is_up());
    drop(held);
    let ended = presence.wait_for(|presence| !presence.is_up());
    tokio::time::timeout(Duration::from_secs(60), ended).await.unwrap().unwrap();
    stage.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_moves_leaves_what_runs_where_it_is() {
    let (here, there) = (worker(1), worker(1));
    let mut stage = stage("[limits]\nconnect_timeout_ms = 200", &[member("alto", 1.0, &here)]).await;
    let before = told(&rest(stage.begin().await).await);
    let refusal = stage.set(list(&[nowhere("alto")])).await.unwrap_err();
    assert!(refusal.message().contains("member \"alto\" is not up: unreachable at"), "{refusal}");
    let running = stage.begin().await;
    stage.set(list(&[member("alto", 1.0, &there)])).await.unwrap();
    assert!(there.frames().is_empty());
    assert!(told(&rest(stage.begin().await).await) == before);
    assert!(!there.frames().is_empty());
    here.until_open(1).await;
    assert!(told(&rest(running).await) == before);
    stage.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_is_wrong_is_refused_whole() {
    let (alto, bass) = (worker(1), worker(2));
    let foreign = ScriptedWorker::start(&Vocabulary::train_characters("xyz").unwrap(), 3, Manner::Faithful);
    let two = [member("alto", 1.0, &alto), member("bass", 1.0, &bass)];
    let mut stage = stage("[limits]\nconnect_timeout_ms = 200", &two).await;
    let (configuration, status) = (stage.configuration().await, stage.status().await);
    let beside = |others: &[MemberSettings]| list(&[&[member("alto", 9.0, &alto)], others].concat());

    let absent = beside(&[nowhere("tuba"), member("oud", 1.0, &foreign), member("cello", 1.0, &bass)]);
    let refusal = stage.set(absent).await.unwrap_err();
    assert_eq!(refusal.code(), Code::FailedPrecondition);
    for part in [
        "member \"tuba\" is not up: unreachable at http://127.0.0.1:9",
        "member \"oud\" is not up: it has another vocabulary",
        "nothing was changed",
    ] {
        assert!(refusal.message().contains(part), "{refusal}");
    }
    assert!(!refusal.message().contains("cello"), "{refusal}");
    assert_eq!(refusal.get_details_error_info().unwrap().metadata["not_up"], "tuba,oud");
    for (wrong, sentence) in [
        (list(&[]), "members: there are none"),
        (beside(&[member("alto", 1.0, &bass)]), "members: \"alto\" is there twice"),
        (beside(&[member("bass", f64::NAN, &bass)]), "the weight of member \"bass\" is NaN"),
        (beside(&[member("B", 1.0, &bass)]), "the name is \"B\""),
        (
            SetMembersRequest { quorum: Some(Quorum { members: 2, weight: 0.0 }), ..beside(&[]) },
            "quorum.members: 2 is not allowed; allowed: 1 to 1",
        ),
    ] {
        let refusal = stage.set(wrong).await.unwrap_err();
        assert_eq!(refusal.code(), Code::InvalidArgument, "{refusal}");
        assert!(refusal.message().contains(sentence), "{refusal}");
        let violations = refusal.get_details_bad_request().unwrap().field_violations;
        let field = if sentence.starts_with("quorum") { "quorum.members" } else { "members" };
        assert_eq!(violations[0].field, field, "{refusal}");
    }
    let late = SetMembersRequest { expected_revision: Some(7), ..beside(&[]) };
    let refusal = stage.set(late).await.unwrap_err();
    assert_eq!(refusal.code(), Code::FailedPrecondition);
    assert!(refusal.message().contains("expected_revision: 7 is not in force; allowed: 1"), "{refusal}");
    let info = refusal.get_details_error_info().unwrap();
    assert_eq!((info.reason.as_str(), info.metadata["revision"].as_str()), ("FAILED_PRECONDITION", "1"));

    assert_eq!((stage.configuration().await, stage.status().await), (configuration, status));
    let same = SetMembersRequest { expected_revision: Some(1), ..list(&two) };
    assert_eq!(stage.set(same).await.unwrap().revision, 1, "nothing was changed");
    stage.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_is_down_is_taken_where_that_is_wanted() {
    let (alto, mut bass) = (worker(1), worker(2));
    bass.kill();
    let mut stage = stage("", &[member("alto", 1.0, &alto)]).await;
    let two = [member("alto", 1.0, &alto), member("bass", 1.0, &bass)];
    let request = SetMembersRequest { allow_down: true, ..list(&two) };
    assert_eq!(stage.set(request).await.unwrap().revision, 2);
    assert_ne!(stage.status().await.members[1].health(), Health::Up);
    bass.start_again(Manner::Faithful);
    until_all_are_up(&mut stage.client).await;
    stage.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_follows_a_change() {
    let (alto, mut bass) = (worker(1), worker(2));
    let two = [member("alto", 1.0, &alto), member("bass", 1.0, &bass)];
    let mut stage = stage("[quorum]\nmembers = 2", &two).await;
    let mut health = stage.coordinator.health("").await;
    until(&mut health, ServingStatus::Serving).await;
    bass.kill();
    until(&mut health, ServingStatus::NotServing).await;
    let quorum = Some(Quorum { members: 1, weight: 0.0 });
    stage.set(SetMembersRequest { quorum, ..list(&two[..1]) }).await.unwrap();
    until(&mut health, ServingStatus::Serving).await;
    bass.start_again(Manner::Faithful);
    let quorum = Some(Quorum { members: 2, weight: 0.0 });
    stage.set(SetMembersRequest { quorum, ..list(&two) }).await.unwrap();
    bass.kill();
    until(&mut health, ServingStatus::NotServing).await;
    stage.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_read_again_takes_effect_or_leaves_everything_as_it_was() {
    let (alto, bass) = (worker(1), worker(2));
    let mut stage = stage("", &[member("alto", 1.0, &alto)]).await;
    let two = [member("alto", 1.0, &alto), member("bass", 3.0, &bass)];
    stage.set(list(&[member("alto", 5.0, &alto)])).await.unwrap();
    *stage.file.lock().unwrap() = toml("[fusion]\nrule = 'log_linear'", &two);
    let reply = stage.admin.reload(ReloadRequest::default()).await.unwrap().into_inner();
    assert_eq!((reply.revision, &reply.members[..]), (3, &two[..]));
    assert_eq!(reply.rule(), chorus_proto::v1::Rule::LogLinear);
    for (broken, sentence) in [
        (toml("colour = 'red'", &two), "the configuration can't be read"),
        (toml("[limits]\nmax_sessions = 7", &two), "limits.max_sessions: 7 is not allowed while"),
        (toml("", &[nowhere("tuba")]), "member \"tuba\" is not up"),
    ] {
        *stage.file.lock().unwrap() = broken;
        let refusal = stage.admin.reload(ReloadRequest::default()).await.unwrap_err();
        assert_eq!(refusal.code(), Code::FailedPrecondition, "{refusal}");
        assert!(refusal.message().contains(sentence), "{refusal}");
    }
    assert_eq!(stage.configuration().await, reply);
    stage.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_waits_ends_with_its_caller_and_with_the_server() {
    let alto = worker(1);
    // It would wait for a day.
    let mut stage = stage("[limits]\nconnect_timeout_ms = 43200000", &[member("alto", 1.0, &alto)]).await;
    // Connections come about there, and that is all.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addresses = vec![format!("http://{}", silent.local_addr().unwrap())];
    let tuba = MemberSettings { addresses, ..nowhere("tuba") };
    let begin = || {
        let (mut admin, request) = (stage.admin.clone(), list(std::slice::from_ref(&tuba)));
        tokio::spawn(async move { admin.set_members(request).await })
    };
    let given_up = begin();
    let _connection = silent.accept().await.unwrap();
    given_up.abort();
    let mut admin = stage.admin.clone();
    let next = admin.set_members(list(&[member("alto", 2.0, &alto)])).await.unwrap();
    assert_eq!(next.into_inner().revision, 2);

    let refused = begin();
    let _connection = silent.accept().await.unwrap();
    let in_force = stage.handle.ensembles();
    stage.coordinator.stop().await;
    assert!(refused.await.unwrap().is_err());
    assert_eq!(in_force.borrow().revision, 2);
    stage.admin.configuration(ConfigurationRequest {}).await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_do_not_find_the_admin_service_and_without_a_file_nothing_is_read_again() {
    let alto = worker(1);
    let stage = stage("", &[member("alto", 1.0, &alto)]).await;
    let mut public = AdminClient::new(stage.coordinator.channel().await);
    let refusal = public.configuration(ConfigurationRequest {}).await.unwrap_err();
    assert_eq!(refusal.code(), Code::Unimplemented);
    stage.coordinator.stop().await;

    let flag = format!("alto={}", alto.url()).parse().unwrap();
    let config = Config::new(None, Overrides { members: vec![flag], ..Overrides::default() }).unwrap();
    let server = crate::Coordinator::new(config).unwrap();
    let handle = server.handle();
    let listener = TcpIncoming::from(TcpListener::bind("127.0.0.1:0").await.unwrap());
    let serving = server.serve(listener, std::future::pending());
    tokio::select! {
        _ = serving => panic!("nobody has stopped it"),
        refusal = handle.reload(false) => {
            assert!(refusal.unwrap_err().to_string().contains("without a configuration file"));
        }
    }
}
