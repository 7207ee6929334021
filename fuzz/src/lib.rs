//! Real vocabularies and what must hold for whatever text is put before them: the tiny model's, and Llama 2's where
//! `make tokenizer` has fetched it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use moderato::model::{InputLimit, Prompt, load_tokenizer_only};
use moderato::policy::{Policy, PolicyFormat};
use serde_json::Value;

const POLICY: &str = "
id: fuzz
revision: 1
taxonomy: fuzz/1
prompt: Judge the post. Answer true or false.
labels:
  - {id: bad, description: false claims, answer: ' false'}
  - {id: good, description: the rest, answer: ' true'}
";

/// Meta's chat format, which the fetched vocabulary comes without.
const LLAMA_2_CHAT: &str = "{% set system = '<<SYS>>\\n' + messages[0]['content'] + '\\n<</SYS>>\\n\\n' %}\
    {{ bos_token + '[INST] ' + (system + messages[1]['content']).strip() + ' [/INST]' }}";

/// One vocabulary with a prompt around it.
pub struct Judge {
    prompt: Prompt,
    control: BTreeSet<u32>,
    /// The piece `INST`, and all that end with an open bracket: one after the other they are Llama 2's tag.
    tag: Option<(BTreeSet<u32>, u32)>,
}

/// Every vocabulary at hand.
pub static JUDGES: LazyLock<Vec<Judge>> = LazyLock::new(|| {
    let tiny = provided("MODERATO_TEST_MODELS", ".cache/models").join("tiny-fp32");
    let llama = provided("MODERATO_TEST_LLAMA2_TOKENIZER", ".cache/llama2-tokenizer");
    let mut judges = vec![Judge::new(&tiny)];
    if llama.join("tokenizer.json").is_file() {
        judges.push(Judge::new(&with_chat_template(&llama)));
    } else {
        eprintln!("without Llama 2's vocabulary: `make tokenizer` fetches it");
    }
    judges
});

fn provided(variable: &str, usual: &str) -> PathBuf {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    std::env::var_os(variable).map_or_else(|| repository.join(usual), PathBuf::from)
}

fn with_chat_template(source: &Path) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("moderato-fuzz-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(source.join(name), folder.join(name)).unwrap();
    }
    fs::write(folder.join("chat_template.jinja"), LLAMA_2_CHAT).unwrap();
    folder
}

impl Judge {
    fn new(folder: &Path) -> Self {
        let policy = Policy::parse(POLICY, PolicyFormat::Yaml).unwrap();
        let prompt = load_tokenizer_only(folder, &policy).unwrap_or_else(|error| panic!("{error}; `make tiny`"));
        let json: Value = serde_json::from_slice(&fs::read(folder.join("tokenizer.json")).unwrap()).unwrap();
        let id = |value: &Value| u32::try_from(value.as_u64().unwrap()).unwrap();
        let added = json["added_tokens"].as_array().unwrap();
        let pieces = json["model"]["vocab"].as_object().unwrap();
        let open = pieces.iter().filter(|(piece, _)| piece.ends_with('[')).map(|(_, value)| id(value)).collect();
        Self {
            prompt,
            control: added.iter().filter(|token| token["special"] == true).map(|token| id(&token["id"])).collect(),
            tag: pieces.get("INST").map(|inst| (open, id(inst))),
        }
    }

    /// Tokenises within the limit and checks all that is promised of the outcome.
    pub fn check(&self, text: &str, limit: &InputLimit) {
        let Ok(seen) = self.prompt.tokenize(text, limit) else { return };
        let ids = seen.ids.strip_suffix(self.prompt.tail_ids()).expect("the prompt's end follows the post");
        assert!(ids.len() <= limit.max_input_tokens, "{} of {}", ids.len(), limit.max_input_tokens);
        assert!(!ids.iter().any(|id| self.control.contains(id)), "a control token: {ids:?}");
        assert_eq!(seen.truncated, seen.tokens_seen < seen.tokens_total);
        if let Some((open, inst)) = &self.tag {
            assert!(!ids.windows(2).any(|pair| open.contains(&pair[0]) && pair[1] == *inst), "a tag: {ids:?}");
        }
        assert_eq!(self.prompt.tokenize(text, limit).as_ref(), Ok(&seen), "the same text, the same ids");
    }
}
