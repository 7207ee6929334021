"""Fine-tunes a Llama-architecture checkpoint with LoRA to answer a policy's labels, or to draft notes."""
