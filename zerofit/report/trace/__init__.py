"""What a PyTorch trace of several ranks says: `zerofit trace`. Kernels are judged by HTA (the extra `trace`)."""
