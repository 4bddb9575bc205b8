"""The FiftyOne App: its server, samples, pictures and the panel."""
