//! One request, one response: the ensemble is asked about every element of a batch at once.
//!
//! Knows nothing about streams, and nothing about how tensors are read.

use std::sync::Arc;

use chorus_proto::Failure;
use chorus_proto::v1::ErrorCode;
use chorus_proto::v1::ensemble_server::Ensemble;
use futures::future::try_join_all;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Response, Status};

use crate::caller::Caller;
use crate::catalogue::VERSION;
use crate::columns::{self, Answers};
use crate::error::translated;
use crate::job::Job;
use crate::outputs::{Output, Task};
use crate::participation::{self, Participation};
use crate::pb::ModelInferResponse;
use crate::tensor;

const ALL_TASKS: [Task; 3] = [Task::Generate, Task::Score, Task::Predict];

/// Carries a request out.
///
/// # Errors
/// What the ensemble says against any of its elements, within the request's own time.
pub(crate) async fn infer<E: Ensemble>(
    ensemble: &Arc<E>,
    caller: &Caller,
    job: &Arc<Job>,
) -> Result<ModelInferResponse, Status> {
    let elements = job.prompts.layout.elements();
    let answers = if elements == 1 {
        vec![answers(ensemble, caller, job, 0, &ALL_TASKS).await?]
    } else {
        let tasks = (0..elements).map(|element| {
            let (ensemble, caller, job) = (Arc::clone(ensemble), caller.clone(), Arc::clone(job));
            AbortOnDropHandle::new(tokio::spawn(async move {
                answers(&ensemble, &caller, &job, element, &ALL_TASKS).await
            }))
        });
        let joined = tasks.map(async |task| match task.await {
            Ok(answers) => answers,
            Err(error) => {
                let message = format!("an element was not answered: {error}");
                Err(Failure::new(ErrorCode::Internal, message).into())
            }
        });
        try_join_all(joined).await?
    };
    response(job, &job.wanted.outputs, &answers)
}

/// What the ensemble says about one element, as far as it is asked for and among `tasks`.
pub(crate) async fn answers<E: Ensemble>(
    ensemble: &Arc<E>,
    caller: &Caller,
    job: &Job,
    element: usize,
    tasks: &[Task],
) -> Result<Answers, Status> {
    let wants = |task: Task| tasks.contains(&task) && job.wanted.needs(task);
    let generation = async {
        let asked = wants(Task::Generate).then(|| ensemble.complete(caller.request(job.generation(element))));
        answered(asked).await
    };
    let score = async {
        let asked = wants(Task::Score).then(|| ensemble.score(caller.request(job.scoring(element))));
        answered(asked).await
    };
    let prediction = async {
        let asked = wants(Task::Predict).then(|| ensemble.predict(caller.request(job.prediction(element))));
        answered(asked).await
    };
    match tokio::try_join!(generation, score, prediction) {
        Ok((generation, score, prediction)) => Ok(Answers { generation, score, prediction }),
        Err(failure) => Err(in_own_words(&failure, job, element)),
    }
}

async fn answered<T>(
    call: Option<impl Future<Output = Result<Response<T>, Status>>>,
) -> Result<Option<T>, Status> {
    match call {
        None => Ok(None),
        Some(call) => call.await.map(|response| Some(response.into_inner())),
    }
}

/// Tokens of all elements that nobody had to read before what follows them was asked, where that was.
fn cached_tokens(answers: &[Answers]) -> Option<i64> {
    let of_generations = answers.iter().filter_map(|answers| answers.generation.as_ref()?.end.as_ref());
    let of_generations = of_generations.map(|end| end.cached_prompt_tokens);
    let of_predictions = answers.iter().filter_map(|answers| answers.prediction.as_ref());
    let all = of_generations.chain(of_predictions.map(|prediction| prediction.cached_tokens));
    all.map(i64::from).reduce(|sum, more| sum + more)
}

/// A failure as this protocol names things.
pub(crate) fn in_own_words(failure: &Status, job: &Job, element: usize) -> Status {
    let place = (job.prompts.layout.elements() > 1).then_some(element);
    translated(failure, job.prompts.tensor, place)
}

/// The response that has these outputs of the answers about all elements.
///
/// # Errors
/// An output that the rule has not, or a member that did not answer itself.
pub(crate) fn response(
    job: &Job,
    outputs: &[Output],
    answers: &[Answers],
) -> Result<ModelInferResponse, Status> {
    let mut participation = Participation::default();
    for answers in answers {
        let Answers { generation, score, prediction } = answers;
        let of_generation = generation.iter().map(|reply| &reply.participation);
        let of_score = score.iter().map(|reply| &reply.participation);
        let of_prediction = prediction.iter().map(|reply| &reply.participation);
        for said in of_generation.chain(of_score).chain(of_prediction).flatten() {
            participation.add(&job.model, said.clone())?;
        }
    }
    let mut response = ModelInferResponse {
        model_name: job.model.name.clone(),
        model_version: VERSION.to_owned(),
        id: job.id.clone(),
        parameters: participation.into_parameters(),
        ..ModelInferResponse::default()
    };
    if outputs.contains(&Output::MemberLogprobs) {
        // In the order of its rows.
        let members = participation::text(columns::scorers(answers).join(","));
        response.parameters.insert("members".to_owned(), members);
    }
    if let Some(cached) = cached_tokens(answers) {
        response.parameters.insert("cached_tokens".to_owned(), participation::number(cached));
    }
    for output in outputs {
        tensor::encode(&columns::tensor(*output, job.prompts.layout, answers)?, &mut response);
    }
    Ok(response)
}
