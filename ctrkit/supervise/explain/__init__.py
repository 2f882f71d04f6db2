"""Why a child hung or died: its scene, collected and told as a cause."""
