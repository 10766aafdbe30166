//! A language model as the engine sees it. Knows nothing about sessions, asks or answers.

use bytes::Bytes;
use chorus_model::{ForwardError, LanguageModel, State, without_spare_threads};
use chorus_simd::Room;

use crate::predictor::{Prediction, Predictor, PredictorError, Restored, Row, Want};

/// A loaded model with the state at which every session starts.
#[derive(Debug)]
pub(crate) struct HostedModel {
    model: LanguageModel,
    fresh_state: State,
    room: Room,
    /// Whether it runs on a device, which computes by itself.
    is_on_device: bool,
}

impl HostedModel {
    pub(crate) fn new(model: LanguageModel) -> Result<Self, ForwardError> {
        let fresh_state = model.fresh_state()?;
        let is_on_device = model.device_memory().is_some();
        Ok(Self { model, fresh_state, room: Room::default(), is_on_device })
    }

    /// Whether the same input gives the same bits, in whatever batch.
    pub(crate) fn repeats_itself(&self) -> bool {
        self.model.repeats_itself()
    }
}

impl Predictor for HostedModel {
    type State = State;

    fn vocabulary_size(&self) -> usize {
        self.model.config().vocab_size
    }

    fn fresh_state(&mut self) -> Result<State, PredictorError> {
        Ok(self.fresh_state.clone())
    }

    fn snapshot(&self, state: &State) -> Result<Bytes, PredictorError> {
        Ok(self.model.values(state)?.iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<Restored<State>, PredictorError> {
        let (values, rest) = snapshot.as_chunks();
        if !rest.is_empty() {
            let bytes = snapshot.len();
            return Ok(Err(format!("a state has a multiple of 4 bytes, but this one has {bytes}").into()));
        }
        let values: Vec<f32> = values.iter().map(|value| f32::from_le_bytes(*value)).collect();
        match self.model.restore(&values) {
            Ok(state) => Ok(Ok(state)),
            Err(error @ (ForwardError::StateSize { .. } | ForwardError::StateNotFinite { .. })) => {
                Ok(Err(error.into()))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn fork(&mut self, state: &State) -> Result<State, PredictorError> {
        Ok(state.clone())
    }

    fn forward(
        &mut self,
        rows: &mut [Row<'_, State>],
        receive: &mut dyn FnMut(Prediction<'_>),
    ) -> Result<(), PredictorError> {
        without_spare_threads(|| self.forward_with_help(rows, receive))
    }

    fn forward_with_help(
        &mut self,
        rows: &mut [Row<'_, State>],
        receive: &mut dyn FnMut(Prediction<'_>),
    ) -> Result<(), PredictorError> {
        let reductions: Vec<_> = rows.iter().map(|row| row.reduction).collect();
        let mut rows: Vec<_> = rows.iter_mut().map(model_row).collect();
        self.model
            .answer(&mut rows, &reductions, &mut self.room, &mut |answer| receive(prediction(answer)))?;
        Ok(())
    }

    fn has_early_work(&self) -> bool {
        self.model.has_early_work()
    }

    fn compute_early(&mut self) -> Result<(), PredictorError> {
        Ok(self.model.compute_early()?)
    }

    fn submit(&mut self, rows: &mut [Row<'_, State>]) -> Result<bool, PredictorError> {
        if !self.is_on_device {
            return Ok(false);
        }
        let reductions: Vec<_> = rows.iter().map(|row| row.reduction).collect();
        let mut rows: Vec<_> = rows.iter_mut().map(model_row).collect();
        Ok(self.model.submit(&mut rows, &reductions)?)
    }

    fn wait(&mut self) -> Result<(), PredictorError> {
        Ok(self.model.wait()?)
    }

    fn collect(&mut self, receive: &mut dyn FnMut(Prediction<'_>)) -> Result<(), PredictorError> {
        Ok(self.model.collect(&mut |answer| receive(prediction(answer)))?)
    }
}

fn prediction(answer: chorus_model::Answer<'_>) -> Prediction<'_> {
    let chorus_model::Answer { row, offset, norm, target, found } = answer;
    Prediction { row, offset, norm, target, found }
}

fn model_row<'a>(row: &'a mut Row<'_, State>) -> chorus_model::Row<'a> {
    let want = match row.want {
        Want::Nothing => chorus_model::Want::Nothing,
        Want::Next => chorus_model::Want::Next,
        Want::Each => chorus_model::Want::Each,
    };
    chorus_model::Row { state: &mut *row.state, tokens: row.tokens, want }
}
