//! `chorus import`: other people's weights and vocabulary become a model directory. What the files mean is
//! [`chorus_model::import`]'s to find out; this is the command line around it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use chorus_model::import::{EndChoice, Imported, StartChoice, import};
use chorus_model::{Config, Start, WeightType};
use chorus_text::Vocabulary;
use clap::ValueEnum;

use crate::client::print;

const EXAMPLES: &str = "\
Examples:
  chorus import --weights model.pt --vocab vocab.txt --out alto
  chorus import --weights model.safetensors --vocab vocab.json --out bass \\
                --dtype f16
  chorus import --weights lm.pth --vocab tokenizer.json --out tenor \\
                --start '<s>' --end '</s>'

The weights are a PyTorch state_dict, by itself or inside a checkpoint
(torch.save), or a safetensors file, of a model embedding -> LSTM -> linear. The
embedding may be absent (one-hot input) or also be the output matrix (tied), and
the biases may be absent. The usual names of the modules are understood:
embedding, encoder, emb, wte; lstm, rnn; linear, fc, decoder, output_proj, head.
A tensor that has no place in such a model is an error, since the model would
compute something else without it.

The vocabulary is a tokenizer.json, a vocab.json map from token to id (of
characters or of words), or a vocab.txt: one word a line, its line number (from
0) the id. Texts for word vocabularies are white-space separated, with <eos> at
each line's end and <unk>, where the vocabulary has it, for words that it does
not have.";

/// Make a model directory of a PyTorch or safetensors file and a vocabulary
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ImportArgs {
    /// The weights: a PyTorch state_dict or checkpoint (.pt, .pth) or a safetensors file
    #[arg(long, value_name = "FILE")]
    weights: PathBuf,
    /// The vocabulary: tokenizer.json, a vocab.json map, or a vocab.txt word list
    #[arg(long, value_name = "FILE")]
    vocab: PathBuf,
    /// The model directory to make; it must not exist, or be empty, unless --force is given
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The model's name [default: the last part of --out]
    #[arg(long)]
    name: Option<String>,
    /// What the first token of a text is conditioned on: a token that is fed first, or `zero-state` [default: <bos>,
    /// <s>, [BOS] or <|endoftext|>, if the vocabulary has it; else <eos> for word vocabularies; else zero-state]
    #[arg(long, value_name = "TOKEN|zero-state", value_parser = start_choice)]
    start: Option<StartChoice>,
    /// The token that ends a generation, or `none` [default: </s>, [EOS], <|endoftext|> or <eos>, if the vocabulary
    /// has it, but never the <eos> that ends the lines of word vocabularies; else none]
    #[arg(long, value_name = "TOKEN|none", value_parser = end_choice)]
    end: Option<EndChoice>,
    /// The type of the written weights; f16 is half as large and rounds to 11 significant bits
    #[arg(long, value_enum, default_value = "f32")]
    dtype: Dtype,
    /// Write into the directory even if there is something in it
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Dtype {
    F32,
    F16,
    Bf16,
}

/// Runs the command.
///
/// # Errors
/// The files can't be read, are no such model, or don't fit each other; the directory is taken or can't be written.
pub(crate) fn run(arguments: ImportArgs) -> anyhow::Result<()> {
    if !arguments.force && is_taken(&arguments.out)? {
        bail!("{} exists and is not empty; --force writes into it", arguments.out.display());
    }
    let name = name(&arguments)?;
    let start = arguments.start.unwrap_or_default();
    let end = arguments.end.unwrap_or_default();
    let imported = import(&arguments.weights, &arguments.vocab, &name, &start, &end)?;
    let weight_type = match arguments.dtype {
        Dtype::F32 => WeightType::F32,
        Dtype::F16 => WeightType::F16,
        Dtype::Bf16 => WeightType::Bf16,
    };
    imported.parts.save(&arguments.out, weight_type)?;
    print(&summary(&imported, &arguments.out))
}

/// Whether something stands where the model directory is to be.
fn is_taken(directory: &Path) -> anyhow::Result<bool> {
    match fs::read_dir(directory) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("can't look into {}", directory.display())),
    }
}

fn name(arguments: &ImportArgs) -> anyhow::Result<String> {
    let last = || arguments.out.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = arguments.name.clone().or_else(last);
    name.with_context(|| format!("{} gives the model no name: use --name", arguments.out.display()))
}

/// What was made, for people.
fn summary(imported: &Imported, directory: &Path) -> String {
    let Config { name, vocab_size, hidden_size, layers, .. } = &imported.parts.config;
    let config = &imported.parts.config;
    let input = config.embedding_size.map_or("one-hot input".to_owned(), |size| format!("embedding {size}"));
    let plural = if *layers == 1 { "layer" } else { "layers" };
    let output = if config.tied { "the embedding as output layer" } else { "an output layer" };
    let biases = match (config.lstm_bias, config.output_bias) {
        (true, true) => "biases",
        (true, false) => "biases in the LSTM only",
        (false, true) => "a bias in the output layer only",
        (false, false) => "no biases",
    };
    let mut text = format!(
        "{name}: {vocab_size} tokens, {input}, {layers} {plural} of {hidden_size}, {output}, {biases}; {} parameters\n",
        config.parameters(),
    );
    let width = imported.renamed.iter().map(|(key, _)| key.chars().count()).max().unwrap_or_default();
    for (key, tensor) in &imported.renamed {
        let shape =
            imported.parts.tensors.get(tensor).map(|tensor| tensor.dims().to_vec()).unwrap_or_default();
        text.push_str(&format!("  {key:width$} -> {tensor} {shape:?}\n"));
    }
    let vocabulary = &imported.parts.vocabulary;
    text.push_str(&format!("  start: {}\n", start_sentence(vocabulary, config.start)));
    text.push_str(&format!("  end: {}\n", config.end.map_or("none".to_owned(), |id| quoted(vocabulary, id))));
    text.push_str(&format!("written to {}\n", directory.display()));
    text
}

fn start_sentence(vocabulary: &Vocabulary, start: Start) -> String {
    match start {
        Start::ZeroState => "zero state".to_owned(),
        Start::Token(id) => quoted(vocabulary, id),
    }
}

fn quoted(vocabulary: &Vocabulary, id: u32) -> String {
    format!("token {id} {:?}", vocabulary.token(id).unwrap_or_default())
}

#[expect(clippy::unnecessary_wraps, reason = "clap parses with functions that may fail")]
fn start_choice(word: &str) -> Result<StartChoice, std::convert::Infallible> {
    Ok(match word {
        "zero-state" | "zero_state" => StartChoice::ZeroState,
        token => StartChoice::Token(token.to_owned()),
    })
}

#[expect(clippy::unnecessary_wraps, reason = "clap parses with functions that may fail")]
fn end_choice(word: &str) -> Result<EndChoice, std::convert::Infallible> {
    Ok(match word {
        "none" => EndChoice::None,
        token => EndChoice::Token(token.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        arguments: ImportArgs,
    }

    fn parse(words: &[&str]) -> ImportArgs {
        let fixed = ["import", "--weights", "w.pt", "--vocab", "v.txt"];
        Command::try_parse_from(fixed.iter().chain(words)).unwrap().arguments
    }

    #[test]
    fn the_name_is_the_last_part_of_the_directory() {
        assert_eq!(name(&parse(&["--out", "models/alto"])).unwrap(), "alto");
        assert_eq!(name(&parse(&["--out", "models/alto", "--name", "bass"])).unwrap(), "bass");
        assert!(name(&parse(&["--out", ".."])).unwrap_err().to_string().contains("--name"));
    }

    #[test]
    fn start_and_end_have_a_word_for_none() {
        let arguments = parse(&["--out", "a", "--start", "zero-state", "--end", "none"]);
        assert_eq!(arguments.start, Some(StartChoice::ZeroState));
        assert_eq!(arguments.end, Some(EndChoice::None));
        let arguments = parse(&["--out", "a", "--start", "<s>", "--end", "</s>"]);
        assert_eq!(arguments.start, Some(StartChoice::Token("<s>".to_owned())));
        assert_eq!(arguments.end, Some(EndChoice::Token("</s>".to_owned())));
    }

    #[test]
    fn a_directory_with_something_in_it_is_not_overwritten() {
        let folder = tempfile::TempDir::new().unwrap();
        let out = folder.path().join("alto");
        assert!(!is_taken(&out).unwrap());
        fs::create_dir(&out).unwrap();
        assert!(!is_taken(&out).unwrap());
        fs::write(out.join("config.json"), "{}").unwrap();
        let error = run(parse(&["--out", out.to_str().unwrap()])).unwrap_err();
        assert!(error.to_string().contains("--force"), "{error}");
        assert_eq!(fs::read_to_string(out.join("config.json")).unwrap(), "{}");
    }
}
