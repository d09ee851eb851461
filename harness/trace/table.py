def render(story, *, replay_command, width=100, facts=None):
    return story.message + "\n" + replay_command
