"""The process: settings, composition, serving, draining. `build` is the only module that names technologies."""
