package warm;

import org.apache.maven.plugin.AbstractMojo;
import org.apache.maven.plugins.annotations.Mojo;

/** Says that it runs. */
@Mojo(name = "say", requiresProject = false)
public final class WarmMojo extends AbstractMojo {
    @Override
    public void execute() {
        getLog().info("warm");
    }
}
