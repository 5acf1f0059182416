"""Page to listen to clips, playlists, and moods in the tags of files."""
