"""Models: backbones, action expert and flow matching. No input or output, no configuration files, no training code."""
