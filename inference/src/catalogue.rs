//! [`Catalogue`]: which models there are, from what an ensemble says of itself; and how they are described.
//!
//! Knows nothing about what is asked of them.

use chorus_proto::Failure;
use chorus_proto::v1::member_status::Health;
use chorus_proto::v1::{FusionOptions, MemberStatus, Rule, StatusReply};
use tonic::{Code, Status};

use crate::outputs::{Described, Extent, INPUTS, Output};
use crate::pb::model_metadata_response::TensorMetadata;
use crate::pb::repository_index_response::ModelIndex;
use crate::pb::{
    DataType, ModelConfig, ModelInput, ModelMetadataResponse, ModelOutput, ModelTransactionPolicy,
};

/// The model that all members together are. A member of the same name can't be asked alone.
pub(crate) const ENSEMBLE: &str = "ensemble";
/// The only version that a model has.
pub(crate) const VERSION: &str = "1";
/// Elements of one request at most. Each is a request of its own to the ensemble.
pub(crate) const MAX_BATCH: usize = 64;

const PLATFORM: &str = "chorus";

/// A model that can be asked.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Model {
    pub(crate) name: String,
    /// One of the members, asked alone.
    pub(crate) is_member: bool,
    /// Why it can't answer now, if it can't.
    pub(crate) obstacle: Option<String>,
}

/// All models: the ensemble, and its members.
#[derive(Debug, Clone)]
pub(crate) struct Catalogue {
    models: Vec<Model>,
}

impl Catalogue {
    pub(crate) fn of(status: &StatusReply) -> Self {
        let obstacle = (!status.serving).then(|| "fewer members are up than the quorum asks for".to_owned());
        let ensemble = Model { name: ENSEMBLE.to_owned(), is_member: false, obstacle };
        let members = status.members.iter().filter(|member| member.name != ENSEMBLE);
        let members = members.map(|member| Model {
            name: member.name.clone(),
            is_member: true,
            obstacle: obstacle_of(member),
        });
        Self { models: [ensemble].into_iter().chain(members).collect() }
    }

    /// The model of a name. Every model has the one version, which need not be named.
    ///
    /// # Errors
    /// NOT_FOUND, as Triton words it.
    pub(crate) fn find(&self, name: &str, version: &str) -> Result<&Model, Status> {
        let model = self.models.iter().find(|model| model.name == name);
        let Some(model) = model else {
            let known: Vec<&str> = self.models.iter().map(|model| model.name.as_str()).collect();
            return Err(not_found(&format!("'{name}' is not found; there are: {}", known.join(", "))));
        };
        if !version.is_empty() && version != VERSION {
            return Err(not_found(&format!("'{name}' version {version} is not found; there is: {VERSION}")));
        }
        Ok(model)
    }

    pub(crate) fn models(&self) -> &[Model] {
        &self.models
    }
}

fn not_found(what: &str) -> Status {
    // The words by which Triton's clients know it.
    let sentence = format!("Request for unknown model: {what}");
    Failure::of_code(Code::NotFound, "NOT_FOUND", sentence).into()
}

fn obstacle_of(member: &MemberStatus) -> Option<String> {
    match member.health() {
        Health::Up => None,
        _ if member.reason.is_empty() => Some("it was not reached yet".to_owned()),
        _ => Some(member.reason.clone()),
    }
}

impl Model {
    /// How a request's own options become those of the model: of a member, that it answers alone. One distribution stays what it
    /// is under every rule, and a member has one where the ensemble may only vote.
    pub(crate) fn fusion_for(&self, mut options: FusionOptions) -> FusionOptions {
        if !self.is_member {
            return options;
        }
        options.members = vec![self.name.clone()];
        if options.rule() == Rule::Unspecified {
            options.set_rule(Rule::WeightedAverage);
        }
        options
    }

    pub(crate) fn metadata(&self) -> ModelMetadataResponse {
        ModelMetadataResponse {
            name: self.name.clone(),
            versions: vec![VERSION.to_owned()],
            platform: PLATFORM.to_owned(),
            inputs: INPUTS.iter().map(tensor_metadata).collect(),
            outputs: Output::ALL.iter().map(|output| tensor_metadata(&output.described())).collect(),
        }
    }

    pub(crate) fn config(&self) -> ModelConfig {
        let input = INPUTS.iter().map(|input| ModelInput {
            name: input.name.to_owned(),
            data_type: input.datatype.into(),
            dims: dims(input.extent),
            optional: true,
        });
        let output = Output::ALL.iter().map(|output| output.described()).map(|output| ModelOutput {
            name: output.name.to_owned(),
            data_type: output.datatype.into(),
            dims: dims(output.extent),
        });
        ModelConfig {
            name: self.name.clone(),
            platform: PLATFORM.to_owned(),
            backend: PLATFORM.to_owned(),
            max_batch_size: i32::try_from(MAX_BATCH).unwrap_or(i32::MAX),
            input: input.collect(),
            output: output.collect(),
            // A request has one answer, unless it says otherwise itself.
            model_transaction_policy: Some(ModelTransactionPolicy { decoupled: false }),
        }
    }

    pub(crate) fn index(&self) -> ModelIndex {
        ModelIndex {
            name: self.name.clone(),
            version: VERSION.to_owned(),
            state: if self.obstacle.is_none() { "READY" } else { "UNAVAILABLE" }.to_owned(),
            reason: self.obstacle.clone().unwrap_or_default(),
        }
    }
}

fn tensor_metadata(tensor: &Described) -> TensorMetadata {
    TensorMetadata {
        name: tensor.name.to_owned(),
        datatype: match tensor.datatype {
            DataType::TypeString => "BYTES".to_owned(),
            other => other.as_str_name().trim_start_matches("TYPE_").to_owned(),
        },
        shape: [-1].into_iter().chain(dims(tensor.extent)).collect(),
    }
}

/// Without the batch.
fn dims(extent: Extent) -> Vec<i64> {
    match extent {
        Extent::One => vec![1],
        Extent::Many => vec![-1],
        Extent::Rows => vec![-1, -1],
    }
}
