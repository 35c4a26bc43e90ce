"""Programs that run inside the sandbox. The service reads their source and never imports them."""
